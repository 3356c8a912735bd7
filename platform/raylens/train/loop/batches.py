"""From the stream's blocks to what the loop takes."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from raylens.train.loop.batch import Batch

__all__ = ["batches"]


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
