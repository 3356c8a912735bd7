"""A worker's share of a global batch, and the iterator that takes such batches from Ray Data.

Shapes: B pairs of a worker, S image size, T tokens.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Batch", "batches"]


@dataclass(frozen=True)
class Batch:
    """The pairs of one worker in a global batch, with the cost of reading them."""

    image_BSSC: NDArray[np.uint8]
    ids_BT: NDArray[np.int32]
    position_B: NDArray[np.int64]
    sample_B: NDArray[np.int64]
    """Index of each sample, counted over all data sets."""
    epoch_B: NDArray[np.int64]
    substituted: int = 0
    """Number of samples that replace unusable ones."""
    truncated: int = 0
    """Number of captions that exceed the context and were cut."""
    made_at: float = 0.0
    """Time at which the last sample was made, in seconds of the system clock."""
    read_seconds: float = 0.0
    """Seconds that data tasks spent on reading these samples; `decode_seconds` is the time spent on decoding them."""
    decode_seconds: float = 0.0


def batches(shard: Any, worker_batch: int) -> Iterator[Batch]:
    """Yield the batches of a worker's part of the stream, in order.

    Args:
        shard: the worker's iterator, as ``ray.train.get_dataset_shard`` or ``streaming_split`` returns it.
        worker_batch: the number of samples in each batch.
    """
    for columns in shard.iter_batches(batch_size=worker_batch, batch_format="numpy", prefetch_batches=2):
        yield Batch(
            # Ray's arrays are read-only views of shared memory; torch needs writable memory of its own.
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
