"""Trials as a figure shows them: which of many, in what colour, with what words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from raylens.evaluate.metrics import Goal
from raylens.report.charts import short_text
from raylens.train.runs.scores import figure_text
from raylens.tune.comparable import Point, newest
from raylens.tune.domain import Domain
from raylens.tune.results import ranked
from raylens.report.axis import Scale, metric_scale, scale_of, value_text
from raylens.tune.trials import TrialRecord

__all__ = ["LEVELS", "Shown", "level_of"]

LEVELS = 7
"""Of a colour from the worst, 0, to the best; the page has them as ``--level-0`` and so on."""
MOST_DRAWN = 250


@dataclass(frozen=True)
class Shown:
    """What all figures of a sweep have in common."""

    trials: Sequence[TrialRecord]
    metric: str
    goal: Goal
    domains: Mapping[str, Domain]

    @cached_property
    def scales(self) -> dict[str, Scale]:
        """Of the searched keys."""
        return {key: scale_of(domain) for key, domain in self.domains.items()}

    @cached_property
    def lower(self) -> bool:
        """Whether lower is better."""
        return self.goal == "min"

    @cached_property
    def better(self) -> str:
        """In words."""
        return f"{'lower' if self.lower else 'higher'} is better"

    @cached_property
    def best(self) -> TrialRecord | None:
        """The best repeat of the best configuration."""
        order = ranked(self.trials, self.metric, self.goal)
        return order[0].best_trial if order else None

    @cached_property
    def points(self) -> list[Point]:
        """The newest value of each trial that has one."""
        return newest(self.trials, self.metric)

    @cached_property
    def metric_scale(self) -> Scale:
        """Of the newest values."""
        return metric_scale([point.metric for point in self.points], self.lower)

    @cached_property
    def drawn(self) -> list[Point]:
        """Of many points so many as can be seen, evenly from the best to the worst and the best trial among them."""
        if len(self.points) <= MOST_DRAWN:
            return self.points
        order = sorted(range(len(self.points)), key=lambda at: self.points[at].metric)
        kept = {order[place] for place in np.linspace(0, len(order) - 1, MOST_DRAWN - 1).round().astype(int)}
        kept |= {at for at, point in enumerate(self.points) if point.trial is self.best}
        return [self.points[at] for at in sorted(kept)]

    @property
    def thinned(self) -> str:
        """A sentence where not all are drawn."""
        left = len(self.points) - len(self.drawn)
        return (
            f" Of {len(self.points):,} trials {len(self.drawn):,} are drawn, evenly from best to worst." if left else ""
        )

    def is_best(self, point: Point) -> bool:
        """Whether it is of the best trial."""
        return point.trial is self.best

    def level(self, value: float) -> int:
        """Colour of a value of the metric, on its axis of newest values."""
        return level_of(value, self.metric_scale, self.lower)

    def says(self, trial: TrialRecord) -> str:
        """What a mark is, when the pointer rests on it."""
        samples = "" if trial.last is None else f" at {short_text(trial.last.samples)} samples"
        return f"{trial.name}, {trial.state}: {figure_text(trial.value(self.metric))}{samples}"

    def settings(self, trial: TrialRecord) -> dict[str, str]:
        """Its values as text, keys of the space first."""
        keys = [
            *(key for key in self.domains if key in trial.values),
            *(k for k in trial.values if k not in self.domains),
        ]
        return {key: value_text(trial.values[key]) for key in keys}


def level_of(value: float, scale: Scale, lower: bool) -> int:
    """Colour of a value on an axis, from 0 for the worst to the best."""
    place = scale.place(value) or 0.0
    return min(LEVELS - 1, int((1 - place if lower else place) * LEVELS))
