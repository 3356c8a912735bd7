"""The settings of a run's machines, which do not change what is learned."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from raylens.config.node import Node

__all__ = ["ResourcesConfig"]

Positive = Annotated[int, Field(gt=0)]


class ResourcesConfig(Node):
    """The machines of a run. They do not change what is learned, because ``global_batch`` stays the same."""

    workers: Positive = 2
    """The number of workers; or ``{min: 2, max: 8}``, the most that the cluster can hold and that divide
    ``global_batch``."""
    min_workers: Positive | None = None
    """The fewest workers to run with; unset, the run waits for all ``workers``."""
    cpus_per_worker: Positive = 1
    gpus_per_worker: Annotated[int, Field(ge=0, le=1)] = 0
    micro_batch: Positive | None = None
    """Pairs that go through the towers at a time; unset, as many as fit into the workers' memory."""
    max_failures: Annotated[int, Field(ge=0)] = 3
    """The most restarts in a row, after a worker or its node was lost, without a new checkpoint; then the run stops."""
    placement: Literal["auto", "anywhere"] = "auto"
    """If the cluster has groups of nodes, ``auto`` restricts workers to the group ``train`` and decoding to the group
    ``decode``."""

    @model_validator(mode="before")
    @classmethod
    def _range(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("workers"), dict):
            return values
        limits = values["workers"]
        if set(limits) != {"min", "max"}:
            raise ValueError(f"workers = {limits}: set a number, or {{min: 2, max: 8}}")
        return {**values, "workers": limits["max"], "min_workers": limits["min"]}

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(f"min_workers = {self.min_workers} is more than workers = {self.workers}")
        return self
