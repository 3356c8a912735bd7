"""The machines of a run and what is spread over them; nothing here changes what is learned."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from raylens.config.node import Node
from raylens.config.zero import conflicts

__all__ = ["CheckpointConfig", "ScaleConfig", "ZeroConfig"]

Positive = Annotated[int, Field(gt=0)]


class ZeroConfig(Node):
    """What DeepSpeed spreads over the workers: 1 optimiser state, 2 gradients too, 3 weights too."""

    stage: Literal[0, 1, 2, 3] = 1
    offload_optimizer: bool = False
    """Keep optimiser state and master weights in the host's memory and update there; needs stage 1, 2 or 3."""
    deepspeed: dict[str, Any] = {}  # noqa: RUF012 (pydantic copies it)
    """More keys for DeepSpeed's configuration, as its documentation has them, such as bucket sizes. What raylens sets
    itself is refused here, with the raylens setting to use."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.offload_optimizer and self.stage == 0:
            raise ValueError("offload_optimizer = true needs stage 1, 2 or 3, now it is 0")
        if found := conflicts(self.deepspeed):
            raise ValueError("; ".join(found))
        return self


class ScaleConfig(Node):
    """The machines. Nothing here changes what is learned: `RunConfig.global_batch` does."""

    workers: Positive = 2
    """Or ``{min: 2, max: 8}``: as many as the cluster has room for, of the numbers that divide ``global_batch``."""
    min_workers: Positive | None = None
    """The fewest to go on with; unset, ``workers`` are waited for."""
    cpus_per_worker: Positive = 1
    gpus_per_worker: Annotated[int, Field(ge=0, le=1)] = 0
    micro_batch: Positive | None = None
    """Pairs that go through the towers at a time; unset, what the memory of the workers holds."""
    max_failures: Annotated[int, Field(ge=0)] = 3
    """Restarts in a row, after a worker or its node was lost, that bring no new checkpoint before the run gives up."""
    placement: Literal["auto", "anywhere"] = "auto"
    """Where a cluster has groups of nodes, ``auto`` keeps workers to those of group ``train`` and decoding to those of
    group ``decode``."""

    @model_validator(mode="before")
    @classmethod
    def _range(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("workers"), dict):
            return values
        given = values["workers"]
        if set(given) != {"min", "max"}:
            raise ValueError(f"workers = {given}: give a number, or {{min: 2, max: 8}}")
        return {**values, "workers": given["max"], "min_workers": given["min"]}

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(f"min_workers = {self.min_workers} is more than workers = {self.workers}")
        return self


class CheckpointConfig(Node):
    """When state is saved, and how much of it is kept."""

    every_steps: Positive | None = 1000
    every_minutes: Annotated[float, Field(gt=0.0)] | None = None
    """Of wall-clock time since the one before; with both, whichever comes first. The last step is saved always."""
    keep_last: Positive = 3
    keep_every: Positive | None = None
    """Those at multiples of so many steps are kept for good."""
    keep_best: Annotated[int, Field(ge=0)] = 0
    """So many more are kept, the best by ``best_by``."""
    best_by: str = "validation_loss"
    """A metric of ``evaluation``; one whose name ends in ``loss`` is better where it is lower."""

    @property
    def lower_is_better(self) -> bool:
        """Whether a checkpoint is better where its metric is lower."""
        return self.best_by.endswith("loss")
