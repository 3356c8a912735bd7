"""The training stream: blocks of the plan, made by Ray Data tasks anywhere in the cluster and delivered in order."""

import pickle
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
from numpy.typing import NDArray

from raylens.capacity import Ask, lasting_shortage, placement
from raylens.config.placement import GROUP_LABEL
from raylens.data.block import BlockMaker
from raylens.data.block_source import counted, task_number
from raylens.data.idle_pause import with_idle_pause
from raylens.errors import ClusterError, RaylensError, own_error
from raylens.storage.patience import be_patient

FAILED = "raylens_error"
AWAY_SECONDS = 300.0
"""Seconds that tasks wait for an unreachable store; training uses the data made in advance, then waits as well."""

__all__ = ["execution_options", "ray_map", "training_stream"]


def training_stream(maker: BlockMaker, *, start: int, stop: int, worker_batch: int) -> "ray.data.Dataset":
    """Return rows for positions ``start .. stop-1`` of the plan, in order, in Ray blocks of one worker's batch.

    ``streaming_split`` deals Ray blocks of equal size in turn: block ``k`` of a step reaches worker ``k``, so that the
    global batch is the same for any number of workers. One execution covers all epochs, so there is no pause between
    them.
    """
    first, last = maker.plan.block_of(start), maker.plan.block_of(stop - 1)

    def make(_: pa.Table) -> Iterator[dict[str, NDArray[np.generic]]]:
        be_patient(AWAY_SECONDS)
        begin, end = maker.plan.block_span(first + task_number())
        begin, end = max(begin, start), min(end, stop)
        if begin < end:
            yield maker.make(begin, end)

    # batch_size=None: one task makes one block of the plan as one Ray block; if it were cut, Ray would join it again.
    blocks = counted(last - first + 1).map_batches(make, batch_size=None, batch_format="pyarrow")
    return with_idle_pause(blocks.repartition(target_num_rows_per_block=worker_batch, strict=True))


def execution_options(selector: Mapping[str, str] | None = None) -> "ray.data.ExecutionOptions":
    """Return execution options with which a stream keeps its order.

    Args:
        selector: labels of the nodes that make the data; None means all nodes.
    """
    options = ray.data.ExecutionOptions(label_selector=dict(selector) if selector else None)
    options.preserve_order = True
    return options


def ray_map(items: list[dict[str, Any]], function: Callable[[dict[str, Any]], pa.Table]) -> Iterator[pa.Table]:
    """Apply a function to each item, anywhere in the cluster, and yield its tables as they arrive.

    If the cluster has nodes that decode, the function runs on these. A `RaylensError` of the function travels as a row
    and is raised here: an exception that ends a task is printed by Ray with a hundred lines of traceback.

    Raises:
        ClusterError: no node has a CPU for this, and none will be added.
    """
    selector = _data_nodes()

    def apply(batch: dict[str, NDArray[Any]]) -> Iterator[pa.Table]:
        for values in zip(*(column.tolist() for column in batch.values()), strict=True):
            try:
                yield function(dict(zip(batch, values, strict=True)))
            except RaylensError as error:
                yield pa.table({FAILED: [pickle.dumps(error)]})

    blocks = ray.data.from_items(items, override_num_blocks=len(items))
    dataset = with_idle_pause(blocks.map_batches(apply, batch_size=None))
    dataset.context.execution_options.label_selector = selector or None
    try:
        for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
            if table.column_names == [FAILED]:
                raise pickle.loads(table[FAILED][0].as_py())  # noqa: S301 (written above, in this cluster)
            yield table
    except ray.exceptions.RayTaskError as error:
        raise own_error(error) or error from None


def _data_nodes() -> dict[str, str]:
    """Return the labels of the nodes that read data.

    Raises:
        ClusterError: no such node has a CPU, and none will be added.
    """
    selector = placement().selector("decode")
    if lasting_shortage([Ask("task that reads data", 1, {"CPU": 1}, selector)], lambda _: None) is not None:
        group = f" of group {selector[GROUP_LABEL]}" if selector else ""
        raise ClusterError(
            f"reading data needs a CPU, and the cluster has no node{group} with one: add one, or omit --address to "
            "read on this machine"
        )
    return selector
