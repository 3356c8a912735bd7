"""A sweep as its figures show it: which of many trials, on what axes, in what colour, with what words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from raylens.evaluate import Goal
from raylens.report import LEVELS, Axis, count_text, finite, metric_axis, number_text, short_text, value_text
from raylens.tune.comparable import Point, newest
from raylens.tune.domain import Domain
from raylens.tune.results import ranked
from raylens.tune.trials import TrialRecord

__all__ = ["MOST_DRAWN", "SweepView", "axis_of", "level_of"]

MOST_DRAWN = 250
"""Most trials in a figure."""


@dataclass(frozen=True)
class SweepView:
    """What all figures of a sweep have in common."""

    trials: Sequence[TrialRecord]
    metric: str
    goal: Goal
    domains: Mapping[str, Domain]

    @cached_property
    def axes(self) -> dict[str, Axis]:
        """The axes of the searched keys."""
        return {key: axis_of(domain) for key, domain in self.domains.items()}

    @cached_property
    def lower(self) -> bool:
        """Whether lower values are better."""
        return self.goal == "min"

    @cached_property
    def better(self) -> str:
        """The better direction in words."""
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
    def metric_axis(self) -> Axis:
        """The axis of the newest values."""
        return metric_axis([point.metric for point in self.points], self.lower)

    @cached_property
    def drawn(self) -> list[Point]:
        """The points of figures: as many as can be seen, evenly from best to worst, with the best trial among them."""
        if len(self.points) <= MOST_DRAWN:
            return self.points
        order = sorted(range(len(self.points)), key=lambda at: self.points[at].metric)
        kept = {order[place] for place in np.linspace(0, len(order) - 1, MOST_DRAWN - 1).round().astype(int)}
        kept |= {at for at, point in enumerate(self.points) if point.trial is self.best}
        return [self.points[at] for at in sorted(kept)]

    @property
    def thinned(self) -> str:
        """A sentence where not all trials are drawn."""
        if len(self.points) == len(self.drawn):
            return ""
        return f" {len(self.drawn):,} of {count_text(len(self.points), 'trials')} are drawn, evenly from best to worst."

    def is_best(self, point: Point) -> bool:
        """Return whether a point belongs to the best trial."""
        return point.trial is self.best

    def level(self, value: float) -> int:
        """Return the colour of a value of the metric on its axis of newest values."""
        return level_of(value, self.metric_axis, self.lower)

    def says(self, trial: TrialRecord) -> str:
        """Return the title of a trial's mark."""
        samples = "" if trial.last is None else f" at {short_text(trial.last.samples)} samples"
        return f"{trial.name}, {trial.state}: {number_text(trial.value(self.metric))}{samples}"

    def settings(self, trial: TrialRecord) -> dict[str, str]:
        """Return the values of a trial as text, keys of the space first."""
        searched = [key for key in self.domains if key in trial.values]
        others = [key for key in trial.values if key not in self.domains]
        return {key: value_text(trial.values[key]) for key in (*searched, *others)}


def axis_of(domain: Domain) -> Axis:
    """Return the axis of a searched key."""
    if domain.span is None:
        values = domain.values
        numbers = all(finite(value) is not None for value in values)
        return Axis(values=tuple(sorted(values) if numbers else values))
    low, high = domain.span
    return Axis(low, high, domain.logarithmic, domain.whole)


def level_of(value: float, axis: Axis, lower: bool) -> int:
    """Return the colour of a value on an axis, from 0 for the worst to the best."""
    place = axis.place(value) or 0.0
    return min(LEVELS - 1, int((1 - place if lower else place) * LEVELS))
