"""The training stream: units of the plan, made by Ray Data tasks anywhere in the cluster, in order."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
from numpy.typing import NDArray

from raylens.data.unit import UnitMaker
from raylens.errors import own_error

__all__ = ["execution_options", "ray_map", "training_stream"]


def training_stream(maker: UnitMaker, *, start: int, stop: int, worker_batch: int) -> "ray.data.Dataset":
    """Rows for positions ``start .. stop-1`` of the plan, in order, in blocks of one worker's batch.

    Uniform blocks are what makes ``streaming_split`` deal them out in turn: block ``k`` of a step then reaches worker
    ``k``, so that the global batch is the same for any number of workers. One execution carries all epochs, so there
    is no pause between them.
    """
    first, last = maker.plan.unit_of(start), maker.plan.unit_of(stop - 1)

    def make(batch: dict[str, NDArray[np.int64]]) -> Iterator[dict[str, NDArray[np.generic]]]:
        for unit in batch["id"] + first:
            begin, end = maker.plan.unit_span(int(unit))
            begin, end = max(begin, start), min(end, stop)
            if begin < end:
                yield from maker.make(begin, end, worker_batch, grid=start)

    units = ray.data.range(last - first + 1, override_num_blocks=last - first + 1)
    # batch_size=None: any number would keep Ray from joining the two operators, and then all of `range` comes first.
    made = units.map_batches(make, batch_size=None)
    return made.repartition(target_num_rows_per_block=worker_batch, strict=True)


def execution_options() -> "ray.data.ExecutionOptions":
    """Options under which a stream keeps its order."""
    options = ray.data.ExecutionOptions()
    options.preserve_order = True
    return options


def ray_map(items: list[dict[str, Any]], function: Callable[[dict[str, Any]], pa.Table]) -> Iterator[pa.Table]:
    """Apply a function to each item, anywhere in the cluster, and yield its tables as they come."""

    def apply(batch: dict[str, NDArray[Any]]) -> Iterator[pa.Table]:
        for values in zip(*(column.tolist() for column in batch.values()), strict=True):
            yield function(dict(zip(batch, values, strict=True)))

    dataset = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(apply, batch_size=None)
    try:
        yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow")
    except ray.exceptions.RayTaskError as error:
        raise own_error(error) or error from None
