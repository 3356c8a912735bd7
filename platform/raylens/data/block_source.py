"""A Ray data set that only counts: it starts one task for each block, which knows its number.

`ray.data.range` does the same, but creates an object for every number before the first task starts, about 1 ms each, so
that a run of a billion samples would begin a quarter of an hour late. Here all tasks share one object and take their
number from the operator's task index, which a retry keeps. The workers check every position that reaches them, so a
change of these numbers would stop a run at its first step.
"""

import pyarrow as pa
import ray
import ray.data
from ray.data.block import BlockMetadataWithSchema
from ray.data.context import DataContext

from raylens.ray_internals import BlockEntry, DatasetStats, InputData, LogicalPlan, RefBundle, TaskContext

__all__ = ["counted", "task_number"]


def counted(count: int) -> "ray.data.Dataset":
    """Return a data set of ``count`` placeholder blocks; an operator that maps it has a task for each."""
    block = pa.table({"nothing": [0]})
    about = BlockMetadataWithSchema.from_block(block)
    bundle = RefBundle([BlockEntry(ray.put(block), about)], owns_blocks=False, schema=about.schema)
    context = DataContext.get_current().copy()
    stats = DatasetStats(metadata={"InputData": [about]}, parent=None)
    return ray.data.Dataset(LogicalPlan(InputData([bundle] * count), context), context, stats)


def task_number() -> int:
    """Return the number of this task, from 0, among those of the operator that maps `counted`."""
    return int(TaskContext.get_current().task_idx)
