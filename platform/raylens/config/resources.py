"""The machines of a run; nothing here changes what is learned."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from raylens.config.node import Node

__all__ = ["ResourcesConfig"]

Positive = Annotated[int, Field(gt=0)]


class ResourcesConfig(Node):
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
