"""The training stream: units of the plan, made by Ray Data tasks anywhere in the cluster, in order."""

import pickle
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
from numpy.typing import NDArray

from raylens.capacity import ResourceRequest, lasting_shortage, placement
from raylens.data.block import UnitMaker
from raylens.data.block_source import counted, task_number
from raylens.data.idle_pause import with_idle_pause
from raylens.errors import ClusterError, RaylensError, own_error
from raylens.placement import GROUP_LABEL
from raylens.storage import be_patient

FAILED = "raylens_error"
AWAY_SECONDS = 300.0
"""So long do tasks wait for a store that is away; there is data ahead of training meanwhile, and then it waits too."""

__all__ = ["execution_options", "ray_map", "training_stream"]


def training_stream(maker: UnitMaker, *, start: int, stop: int, worker_batch: int) -> "ray.data.Dataset":
    """Rows for positions ``start .. stop-1`` of the plan, in order, in blocks of one worker's batch.

    Uniform blocks are what makes ``streaming_split`` deal them out in turn: block ``k`` of a step then reaches worker
    ``k``, so that the global batch is the same for any number of workers. One execution carries all epochs, so there
    is no pause between them.
    """
    first, last = maker.plan.unit_of(start), maker.plan.unit_of(stop - 1)

    def make(_: pa.Table) -> Iterator[dict[str, NDArray[np.generic]]]:
        be_patient(AWAY_SECONDS)
        begin, end = maker.plan.unit_span(first + task_number())
        begin, end = max(begin, start), min(end, stop)
        if begin < end:
            yield maker.make(begin, end)

    # batch_size=None: one task for each block. A unit is one block; cut into several, Ray puts them together again.
    units = counted(last - first + 1).map_batches(make, batch_size=None, batch_format="pyarrow")
    return with_idle_pause(units.repartition(target_num_rows_per_block=worker_batch, strict=True))


def execution_options(selector: Mapping[str, str] | None = None) -> "ray.data.ExecutionOptions":
    """Options under which a stream keeps its order.

    Args:
        selector: labels of the nodes that make the data; all nodes if None.
    """
    options = ray.data.ExecutionOptions(label_selector=dict(selector) if selector else None)
    options.preserve_order = True
    return options


def ray_map(items: list[dict[str, Any]], function: Callable[[dict[str, Any]], pa.Table]) -> Iterator[pa.Table]:
    """Apply a function to each item, anywhere in the cluster, and yield its tables as they come.

    Where the cluster has nodes that decode, it is applied there. An error that the function raises on purpose comes as
    a row, and is raised here: what ends a task is printed by Ray with a hundred lines of its own.

    Raises:
        ClusterError: no node has, or gets, a CPU for this.
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
    """Labels of the nodes that read data.

    Raises:
        ClusterError: there is none, and none comes.
    """
    selector = placement().selector("decode")
    if lasting_shortage([ResourceRequest("task that reads data", 1, {"CPU": 1}, selector)], lambda _: None) is not None:
        group = f" of group {selector[GROUP_LABEL]}" if selector else ""
        raise ClusterError(
            f"reading data needs a CPU, and the cluster has no node{group} with one: add one, or leave --address out, "
            "and this machine reads"
        )
    return selector
