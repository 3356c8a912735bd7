"""A worker's share of a global batch. Shapes: B a worker's pairs, S image size, T tokens."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Batch", "batches"]


@dataclass(frozen=True)
class Batch:
    """A worker's share of a global batch."""

    image_BSSC: NDArray[np.uint8]
    ids_BT: NDArray[np.int32]
    position_B: NDArray[np.int64]
    sample_B: NDArray[np.int64]
    """Counted over all data sets."""
    epoch_B: NDArray[np.int64]
    substituted: int = 0
    """Samples that stand in for unusable ones."""
    truncated: int = 0
    """Captions that are longer than the context and were cut."""
    made_at: float = 0.0
    """When the last of it was made, in seconds of the system's clock."""
    read_seconds: float = 0.0
    """What data tasks spent on reading it, and below on decoding it."""
    decode_seconds: float = 0.0


def batches(shard: Any, worker_batch: int) -> Iterator[Batch]:
    """Batches of a worker's part of the stream, in order.

    Args:
        shard: the worker's iterator, as ``ray.train.get_dataset_shard`` or ``streaming_split`` gives it.
        worker_batch: samples of each.
    """
    for columns in shard.iter_batches(batch_size=worker_batch, batch_format="numpy", prefetch_batches=2):
        yield Batch(
            # Ray's arrays are read-only views of shared memory; torch wants to own what it holds.
            image_BSSC=np.array(columns["image"]),
            ids_BT=np.array(columns["ids"]),
            position_B=np.asarray(columns["position"]),
            sample_B=np.asarray(columns["sample"]),
            epoch_B=np.asarray(columns["epoch"]),
            substituted=int(columns["substituted"].sum()),
            truncated=int(columns["truncated"].sum()),
            made_at=float(columns["made_at"].max()),
            read_seconds=float(columns["read_seconds"].sum()),
            decode_seconds=float(columns["decode_seconds"].sum()),
        )
