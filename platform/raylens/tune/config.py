"""The complete configuration of a sweep, `SweepConfig`, and its sections."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from raylens.config import Node, RunConfig
from raylens.errors import ConfigError
from raylens.evaluate import Goal
from raylens.names import SWEEP_NAME
from raylens.tune.domain import Domain, from_list
from raylens.tune.presets import PRESETS
from raylens.tune.space import Space, with_values
from raylens.tune.transfer import TransferConfig, transferred

__all__ = ["BudgetConfig", "SchedulerConfig", "SearchConfig", "SweepConfig"]

Positive = Annotated[int, Field(gt=0)]
Amount = Annotated[float, Field(gt=0.0)]


class SearchConfig(Node):
    """The search algorithm, which chooses the configurations."""

    kind: Literal["random", "grid", "tpe"] = "random"
    """``tpe`` is Optuna's tree-structured Parzen estimator (Bergstra et al. 2011), which learns from earlier trials."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of the search; trials are initialised from the run's ``seed``."""
    warm_up: Positive = 10
    """Number of random configurations before ``tpe`` uses its model."""


class SchedulerConfig(Node):
    """The scheduler, which stops or replaces trials early."""

    kind: Literal["fifo", "asha", "median", "pbt"] = "asha"
    """``fifo`` trains all trials to the end. ``asha`` stops all but the best at each rung (Li et al. 2020). ``median``
    stops trials worse than the median of the others. ``pbt`` replaces the worst trials by perturbed copies of the best
    during training (Jaderberg et al. 2017)."""
    by: Literal["samples", "steps"] = "samples"
    """Unit in which rungs and intervals are counted."""
    first: Positive | None = None
    """Grace period in units of `by` before a trial is stopped or replaced; by default a ninth of a run for
    ``asha``, else a quarter."""
    reduction: Annotated[int, Field(ge=2, le=10)] = 3
    """ASHA reduction factor: 1/reduction of the trials are promoted; each rung is `reduction` times longer."""
    interval: Positive | None = None
    """PBT perturbation interval in units of `by`; by default a tenth of a run."""
    quantile: Annotated[float, Field(gt=0.0, le=0.5)] = 0.25
    """PBT quantile: this share of the trials, the worst, is replaced by copies of the best share of the same size."""
    factors: tuple[Amount, Amount] = (0.8, 1.25)
    """PBT perturbation factors: each number of a copy is multiplied by one of them."""


class BudgetConfig(Node):
    """The budget of a sweep, which ends when the first part is used up; trials are kept."""

    trials: Positive = 24
    """Number of configurations; a grid ignores it and tries all."""
    hours: Amount | None = None
    """Wall-clock hours, summed over all starts."""
    samples: Positive | None = None
    """Training samples, summed over all trials."""
    gpu_hours: Amount | None = None


class SweepConfig(Node):
    """The configuration of a sweep; a file may have ``recipe`` and ``changes`` in place of ``run``."""

    name: Annotated[str, AfterValidator(SWEEP_NAME.validated)]
    storage: str = "sweeps"
    """Storage of the sweep, which writes all its files under ``<storage>/<name>/``."""
    run: RunConfig
    """The base configuration, whose keys keep their value unless they are searched."""
    presets: list[str] = []  # noqa: RUF012 (pydantic copies it)
    """Ready-made parts of the space; keys of ``space`` take precedence."""
    space: dict[str, Domain] = {}  # noqa: RUF012
    """Domains of the searched keys, by dotted path as in ``--set``."""
    transfer: TransferConfig | None = None
    """The learning rates of ``space`` are those of a small proxy, and are scaled to ``run``."""
    metric: str = "validation_loss"
    """One of ``run.evaluation``, which says whether higher or lower is better."""
    search: SearchConfig = SearchConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    budget: BudgetConfig = BudgetConfig()
    repeats: Annotated[int, Field(ge=1, le=100)] = 1
    """Number of trials of each configuration, with the run's seed and those after it."""
    concurrent: Positive | None = None
    """Number of trials at a time; by default as many as fit into the cluster."""
    retries: Annotated[int, Field(ge=0)] = 1
    """Number of restarts of a failed trial, from its newest checkpoint, before it is recorded as failed."""

    @field_validator("space", mode="before")
    @classmethod
    def _lists_alone(cls, space: object) -> object:
        return {key: from_list(domain) for key, domain in space.items()} if isinstance(space, Mapping) else space

    @field_validator("presets")
    @classmethod
    def _known(cls, presets: list[str]) -> list[str]:
        for name in presets:
            if name not in PRESETS:
                raise ValueError(f"unknown preset {name!r}: choose from {', '.join(PRESETS)}")
        return presets

    @model_validator(mode="after")
    def _measured(self) -> Self:
        metrics = self.run.metrics
        if self.metric not in metrics:
            has = f"it measures {', '.join(metrics)}" if metrics else "it measures nothing: set run.evaluation.pairs"
            raise ValueError(f"metric = {self.metric!r} is not measured by run.evaluation: {has}")
        return self

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        kind = self.scheduler.kind
        if kind == "pbt" and self.search.kind == "tpe":
            raise ValueError("scheduler.kind = 'pbt' perturbs configurations itself: set search.kind to random or grid")
        if kind == "pbt" and self.repeats > 1:
            raise ValueError(f"repeats = {self.repeats} is impossible with scheduler.kind = 'pbt': set repeats to 1")
        if self.repeats > 1 and "seed" in self.space:
            raise ValueError(f"repeats = {self.repeats} varies the seed: remove seed from space, or set repeats to 1")
        return self

    @property
    def goal(self) -> Goal:
        """Whether a higher or a lower ``metric`` is better, as the run's evaluation declares it."""
        return self.run.metrics[self.metric]

    def space_of(self, steps: int) -> Space:
        """Build the space of presets and own keys, for a run of ``steps`` steps."""
        domains: dict[str, Domain] = {}
        for name in self.presets:
            domains |= PRESETS[name](self.run, steps)
        # Own keys replace those of presets in their position, so that conditions still refer to earlier keys.
        domains |= self.space if self.transfer is None else transferred(self.space, self.transfer, self.run)
        return Space(domains)

    def check(self, steps: int) -> Space:
        """Build the space and check it against the run.

        Raises:
            ConfigError: the run refuses a value of the space; the message names the key.
        """
        space = self.space_of(steps)
        space.check(self.run)
        if self.scheduler.kind == "pbt":
            _check_changeable(space)
        return space

    def trial_tree(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the run's configuration tree with the values of a trial."""
        return with_values(self.run.model_dump(mode="json"), dict(values))


def _check_changeable(space: Space) -> None:
    for key in space.domains:
        if not key.startswith(("optim.", "objective.")) or key.endswith(".kind"):
            raise ConfigError(
                f"space: {key} cannot change during training, as scheduler.kind = 'pbt' requires: search keys of optim "
                "and objective other than kind, or choose another scheduler"
            )
