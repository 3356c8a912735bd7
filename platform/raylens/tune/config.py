"""`SweepConfig`: everything that a sweep depends on."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from raylens.config import Node, RunConfig
from raylens.errors import ConfigError
from raylens.names import SWEEP_NAME
from raylens.tune.domain import Domain, from_list
from raylens.tune.presets import PRESETS
from raylens.tune.space import Space, with_values
from raylens.tune.transfer import TransferConfig, transferred

__all__ = ["BudgetConfig", "SchedulerConfig", "SearchConfig", "SweepConfig"]

Positive = Annotated[int, Field(gt=0)]
Amount = Annotated[float, Field(gt=0.0)]


class SearchConfig(Node):
    """How configurations are chosen."""

    kind: Literal["random", "grid", "tpe"] = "random"
    """``tpe`` is Optuna's tree-structured Parzen estimator (Bergstra et al. 2011): it learns from what came before."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Of the choice alone; what a trial begins with is the run's ``seed``."""
    warm_up: Positive = 10
    """Random configurations before ``tpe`` begins to learn."""


class SchedulerConfig(Node):
    """How the effort is shared among trials."""

    kind: Literal["fifo", "asha", "median", "pbt"] = "asha"
    """``fifo`` trains all to the end. ``asha`` stops all but the best part at each rung (Li et al. 2020). ``median``
    stops what is worse than the median of the others so far. ``pbt`` replaces the worst by changed copies of the best
    while they train (Jaderberg et al. 2017)."""
    by: Literal["samples", "steps"] = "samples"
    """What rungs and intervals are counted in."""
    first: Positive | None = None
    """Of `by` before anything is stopped or replaced; unset, a ninth of a run for ``asha``, else a quarter."""
    reduction: Annotated[int, Field(ge=2, le=10)] = 3
    """Of ``asha``: one in so many goes on at a rung, and the next is so many times as far."""
    interval: Positive | None = None
    """Of ``pbt``: of `by` between two looks; unset, a tenth of a run."""
    quantile: Annotated[float, Field(gt=0.0, le=0.5)] = 0.25
    """Of ``pbt``: this share, the worst, is replaced by copies of this share, the best."""
    factors: tuple[Amount, Amount] = (0.8, 1.25)
    """Of ``pbt``: what a number of a copy is multiplied by, one or the other."""


class BudgetConfig(Node):
    """What a sweep may use. It ends when the first of these is used up; what was trained stays."""

    trials: Positive = 24
    """Configurations; of a grid all are tried, whatever is said here."""
    hours: Amount | None = None
    """Of the clock, all starts together."""
    samples: Positive | None = None
    """Trained on, over all trials."""
    gpu_hours: Amount | None = None


class SweepConfig(Node):
    """A complete sweep; a file may have ``recipe`` and ``changes`` in place of ``run``."""

    name: Annotated[str, AfterValidator(SWEEP_NAME.validated)]
    storage: str = "sweeps"
    """Where the sweep lives: everything it writes is under ``<storage>/<name>/``."""
    run: RunConfig
    """What is trained where nothing is searched."""
    presets: list[str] = []  # noqa: RUF012 (pydantic copies it)
    """Ready-made parts of the space; keys of ``space`` go before theirs."""
    space: dict[str, Domain] = {}  # noqa: RUF012
    """By dotted path, as ``--set`` has it."""
    transfer: TransferConfig | None = None
    """The learning rates of ``space`` are those of a small proxy, and are scaled to ``run``."""
    metric: str = "validation_loss"
    """One of ``run.evaluation``; one whose name has "loss", "rank" or "error" in it is better where it is lower."""
    search: SearchConfig = SearchConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    budget: BudgetConfig = BudgetConfig()
    repeats: Annotated[int, Field(ge=1, le=100)] = 1
    """Each configuration is trained so many times, with the seeds behind the run's."""
    concurrent: Positive | None = None
    """Trials at a time; unset, what the cluster has room for."""
    retries: Annotated[int, Field(ge=0)] = 1
    """So often is a trial that failed begun again, from its newest checkpoint, before it is recorded as failed."""

    @field_validator("space", mode="before")
    @classmethod
    def _lists_alone(cls, space: object) -> object:
        return {key: from_list(one) for key, one in space.items()} if isinstance(space, Mapping) else space

    @field_validator("presets")
    @classmethod
    def _known(cls, presets: list[str]) -> list[str]:
        for name in presets:
            if name not in PRESETS:
                raise ValueError(f"unknown preset {name!r}; there are: {', '.join(PRESETS)}")
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
            raise ValueError("scheduler.kind = 'pbt' changes what it copies by itself: search.kind is random or grid")
        if kind == "pbt" and self.repeats > 1:
            raise ValueError(f"scheduler.kind = 'pbt' has no repeats, now {self.repeats}: set repeats to 1")
        if self.repeats > 1 and "seed" in self.space:
            raise ValueError("seed is searched and repeats vary it: leave it out of space, or set repeats to 1")
        return self

    def space_of(self, steps: int) -> Space:
        """Presets, then the keys of its own, for a run of so many steps."""
        found: dict[str, Domain] = {}
        for name in self.presets:
            found |= PRESETS[name](self.run, steps)
        # Own keys take the place of a preset's, so that conditions on them still look back.
        found |= self.space if self.transfer is None else transferred(self.space, self.transfer, self.run)
        return Space(found)

    def check(self, steps: int) -> Space:
        """The space, if the run takes it.

        Raises:
            ConfigError: names the key and what is wrong with it.
        """
        space = self.space_of(steps)
        space.check(self.run)
        if self.scheduler.kind == "pbt":
            _check_changeable(space)
        return space

    def trial_tree(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The run's tree with values of the space in their places."""
        return with_values(self.run.model_dump(mode="json"), dict(values))


def _check_changeable(space: Space) -> None:
    for key in space.domains:
        if not key.startswith(("optim.", "objective.")) or key.endswith(".kind"):
            raise ConfigError(
                f"space: {key} cannot change while a trial trains, as scheduler.kind = 'pbt' would have it: search "
                "keys of optim and objective other than kind, or choose another scheduler"
            )
