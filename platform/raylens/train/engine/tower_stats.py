"""The statistics of the towers in the last step, computed only when they are logged.

Shapes: b pairs, D embedding.
"""

import resource

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raylens.models import DualEncoder, Embedded
from raylens.train.loop.stats import BINS, TowerStats

__all__ = ["TowerMonitor"]

MOST = 512
"""Largest number of pairs whose cosines are counted."""


class TowerMonitor:
    """Records the output of every forward pass of the towers."""

    def __init__(self, model: DualEncoder, device: torch.device) -> None:
        self._device = device
        self._output: dict[str, Tensor] = {}
        self._ids_bT: NDArray[np.int32] | None = None
        self._end = model.end_id
        self._embedded: Embedded | None = None
        for name, tower in (("image", model.visual), ("text", model.text)):
            tower.register_forward_hook(lambda _, __, output, name=name: self._see(name, output))

    def _see(self, name: str, output: object) -> None:
        if isinstance(output, Tensor) and output.dim() == 2:
            self._output[name] = output.detach()

    def captions(self, ids_bT: NDArray[np.int32]) -> None:
        """Record the worker's captions of a step."""
        self._ids_bT = ids_bT

    def pairs(self, embedded: Embedded) -> None:
        """Record the embeddings of the worker's pairs in a step, without graphs."""
        self._embedded = embedded

    @torch.no_grad()
    def tower_stats(self) -> TowerStats:
        """Compute the statistics of the last step."""
        norms = {name: float(output.float().norm(dim=1).mean()) for name, output in self._output.items()}
        positive, negative = ((), ()) if self._embedded is None else _histograms(self._embedded)
        return TowerStats(norms.get("image"), norms.get("text"), positive, negative, self._tokens(), self._memory())

    def _tokens(self) -> float:
        return 0.0 if self._ids_bT is None else float((self._ids_bT == self._end).argmax(axis=1).mean()) + 1.0

    def _memory(self) -> int:
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _histograms(embedded: Embedded) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the histograms of matching and of other pairs among the first pairs of the worker."""
    image_bD, text_bD = embedded.image_BD[:MOST].float(), embedded.text_BD[:MOST].float()
    cosine_bb = (image_bD @ text_bD.T).nan_to_num(0.0).clamp(-1.0, 1.0)
    own_bb = torch.eye(len(cosine_bb), dtype=torch.bool, device=cosine_bb.device)
    return _counts(cosine_bb[own_bb]), _counts(cosine_bb[~own_bb])


def _counts(cosine_n: Tensor) -> tuple[int, ...]:
    bin_n = ((cosine_n + 1.0) * (BINS / 2)).long().clamp(max=BINS - 1)
    return tuple(torch.bincount(bin_n, minlength=BINS).tolist())
