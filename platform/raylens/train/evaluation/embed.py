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

__all__ = ["Embedder", "embed_images", "embed_pairs", "embed_texts"]

Columns = dict[str, Tensor]


class Embedder:
    """The module, the batch size for embedding, and the device."""

    def __init__(
        self, forward: Forward, batch: int, device: torch.device, most: Callable[[list[int]], list[int]]
    ) -> None:
        self.forward, self.batch, self.device = forward, batch, device
        self._all_max = most

    @torch.no_grad()
    def rows(self, shard: EvalShard, call: Callable[[Tensor, Tensor], Columns]) -> Rows:
        """Return what ``call`` computes from the pixels and the ids of each sample.

        All workers call the module equally often, because ZeRO-3 gathers parameters collectively; a worker without
        samples left embeds one that is discarded.
        """
        rounds = self._all_max([-(-len(shard) // self.batch)])[0]
        size, context = self.forward.model.config.image.size, self.forward.model.config.text.context
        parts: list[Columns] = []
        for number in range(max(1, rounds)):
            rows = slice(number * self.batch, (number + 1) * self.batch)
            here = max(0, min(self.batch, len(shard) - rows.start))
            image = _part(shard.image_nSSC, rows, (size, size, 3), here, 0)
            ids = _part(shard.ids_nT, rows, (context,), here, self.forward.model.end_id)
            columns = call(image.to(self.device), ids.to(self.device))
            parts.append({name: column[:here].cpu() for name, column in columns.items()})
        return Rows(shard.keys, {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]})


def _part(array: NDArray[np.generic] | None, rows: slice, shape: tuple[int, ...], count: int, filling: int) -> Tensor:
    if array is None or not count:
        kind = torch.uint8 if len(shape) == 3 else torch.int32
        return torch.full((max(1, count), *shape), filling, dtype=kind)
    return torch.from_numpy(array[rows].copy())


def embed_pairs(embedder: Embedder, shard: EvalShard) -> tuple[Rows, float, float | None]:
    """Return both embeddings of each pair, the log of the logit scale, and the bias; or only the loss of each pair."""
    scale: list[float] = []
    bias: list[float] = []

    def call(image: Tensor, ids: Tensor) -> Columns:
        key_b = torch.zeros(len(ids), dtype=torch.int64, device=ids.device)
        if not isinstance(embedder.forward, PairForward):
            loss_b, log_scale = embedder.forward(image, ids, key_b)
            scale[:] = [float(log_scale)]
            return {"loss": loss_b.float()}
        embedded = embedder.forward(image, ids, key_b)
        scale[:] = [float(embedded.log_scale)]
        bias[:] = [] if embedded.bias is None else [float(embedded.bias)]
        return {"image": embedded.image_BD, "text": embedded.text_BD}

    rows = embedder.rows(shard, call)
    assert shard.ids_nT is not None
    rows.columns["text_key"] = np.array([_word(ids) for ids in shard.ids_nT], dtype=np.int64)
    return rows, scale[0], bias[0] if bias else None


def embed_images(embedder: Embedder, shard: EvalShard) -> Rows:
    """Return the embedding and the label of each labelled image."""
    rows = embedder.rows(shard, lambda image, _: {"image": embedder.forward.embed_images(image)})
    rows.columns["label"] = np.array(shard.labels_n, dtype=np.int64)
    return rows


def embed_texts(embedder: Embedder, shard: EvalShard) -> Rows:
    """Return the embedding of each prompt."""
    return embedder.rows(shard, lambda _, ids: {"text": embedder.forward.embed_texts(ids)})


def _word(ids_T: NDArray[np.int32]) -> int:
    """Return a hash that is equal for equal texts, on every machine."""
    return int.from_bytes(hashlib.blake2b(ids_T.tobytes(), digest_size=8).digest(), "little", signed=True)
