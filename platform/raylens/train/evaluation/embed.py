"""The embeddings of a worker's share of an evaluation. Every function here is collective under ZeRO-3.

Shapes: n samples of the share, b of a round, D embedding.
"""

import hashlib
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raylens.train.engine.forward import Forward, PairForward
from raylens.train.evaluation.eval_data import EvalShard
from raylens.train.evaluation.metrics import Rows

__all__ = ["Embedding", "embed_images", "embed_pairs", "embed_texts"]

Columns = dict[str, Tensor]


class Embedding:
    """The module, the batch size for embedding, and the device."""

    def __init__(
        self, forward: Forward, batch: int, device: torch.device, most: Callable[[list[int]], list[int]]
    ) -> None:
        self.forward, self.batch, self.device = forward, batch, device
        self._all_max = most

    @torch.no_grad()
    def rows(self, held: EvalShard, call: Callable[[Tensor, Tensor], Columns]) -> Rows:
        """Return what ``call`` computes from the pixels and the ids of each sample.

        All workers call the module equally often, because ZeRO-3 gathers parameters collectively; a worker without
        samples left embeds one that is discarded.
        """
        rounds = self._all_max([-(-len(held) // self.batch)])[0]
        size, context = self.forward.model.config.image.size, self.forward.model.config.text.context
        found: list[Columns] = []
        for number in range(max(1, rounds)):
            rows = slice(number * self.batch, (number + 1) * self.batch)
            here = max(0, min(self.batch, len(held) - rows.start))
            image = _part(held.image_nSSC, rows, (size, size, 3), here, 0)
            ids = _part(held.ids_nT, rows, (context,), here, self.forward.model.end_id)
            columns = call(image.to(self.device), ids.to(self.device))
            found.append({name: column[:here].cpu() for name, column in columns.items()})
        return Rows(held.places, {name: torch.cat([one[name] for one in found]).numpy() for name in found[0]})


def _part(array: NDArray[np.generic] | None, rows: slice, shape: tuple[int, ...], count: int, filling: int) -> Tensor:
    if array is None or not count:
        kind = torch.uint8 if len(shape) == 3 else torch.int32
        return torch.full((max(1, count), *shape), filling, dtype=kind)
    return torch.from_numpy(array[rows].copy())


def embed_pairs(embedding: Embedding, held: EvalShard) -> tuple[Rows, float, float | None]:
    """Return both embeddings of each pair, the logarithm of the logit scale, and the bias; or only the loss of each
    pair."""
    scale: list[float] = []
    bias: list[float] = []

    def call(image: Tensor, ids: Tensor) -> Columns:
        key_b = torch.zeros(len(ids), dtype=torch.int64, device=ids.device)
        if not isinstance(embedding.forward, PairForward):
            loss_b, log_scale = embedding.forward(image, ids, key_b)
            scale[:] = [float(log_scale)]
            return {"loss": loss_b.float()}
        found = embedding.forward(image, ids, key_b)
        scale[:] = [float(found.log_scale)]
        bias[:] = [] if found.bias is None else [float(found.bias)]
        return {"image": found.image_BD, "text": found.text_BD}

    rows = embedding.rows(held, call)
    assert held.ids_nT is not None
    rows.columns["text_key"] = np.array([_word(ids) for ids in held.ids_nT], dtype=np.int64)
    return rows, scale[0], bias[0] if bias else None


def embed_images(embedding: Embedding, held: EvalShard) -> Rows:
    """Return the embedding and the label of each labelled image."""
    rows = embedding.rows(held, lambda image, _: {"image": embedding.forward.embed_images(image)})
    rows.columns["label"] = np.array(held.labels_n, dtype=np.int64)
    return rows


def embed_texts(embedding: Embedding, held: EvalShard) -> Rows:
    """Return the embedding of each prompt."""
    return embedding.rows(held, lambda _, ids: {"text": embedding.forward.embed_texts(ids)})


def _word(ids_T: NDArray[np.int32]) -> int:
    """Return a hash that is equal for equal texts, on every machine."""
    return int.from_bytes(hashlib.blake2b(ids_T.tobytes(), digest_size=8).digest(), "little", signed=True)
