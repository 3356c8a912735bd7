"""Which measurements of trials can be compared: those after equally many samples."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raylens.report.numbers import finite
from raylens.tune.trials import Measured, SweepRecord, TrialRecord

__all__ = ["LEAST", "Comparable", "Point", "cleaned", "comparable", "newest"]

LEAST = 8
"""Trials from which anything is said about a key."""
SHARE = 2 / 3
"""Of the trials with values: so many must have reached where they are compared."""


@dataclass(frozen=True)
class Point:
    """A trial with its settings and the metric that it had with them."""

    trial: TrialRecord
    values: Mapping[str, Any]
    metric: float


@dataclass(frozen=True)
class Comparable:
    """Trials where they are compared."""

    samples: int
    """Seen by each of them; at those trials that measure elsewhere, the newest measurement up to there counts."""
    points: Sequence[Point]
    """One a trial that has reached it, in their order."""
    known: int
    """Trials that have any value."""


def comparable(trials: Sequence[TrialRecord], metric: str) -> Comparable | None:
    """At the largest number of samples that at least two thirds of the trials with values have reached.

    Schedulers stop the worse trials early, so that newest values tell how long a trial was trained as well as how
    good its settings are. None where fewer than `LEAST` trials have reached anything in common.
    """
    curves = [curve for trial in trials if (curve := _known(trial, metric))]
    least = max(LEAST, math.ceil(SHARE * len(curves)))
    for samples in sorted({one.samples for curve in curves for one, _ in curve}, reverse=True):
        reached = [curve for curve in curves if curve[0][0].samples <= samples <= curve[-1][0].samples]
        if len(reached) >= least:
            return Comparable(samples, [_at(curve, samples) for curve in reached], len(curves))
    return None


def newest(trials: Sequence[TrialRecord], metric: str) -> list[Point]:
    """The newest value of each trial that has one, however far it was trained."""
    return [curve[-1][1] for trial in trials if (curve := _known(trial, metric))]


def cleaned(record: SweepRecord) -> SweepRecord:
    """Without the metrics that are no numbers, which cannot be drawn or compared."""
    trials = [trial.with_(curve=[_finite(one) for one in trial.curve]) for trial in record.trials]
    return record.model_copy(update={"trials": trials})


def _finite(one: Measured) -> Measured:
    metrics = {key: value for key, value in one.metrics.items() if finite(value) is not None}
    return one if len(metrics) == len(one.metrics) else one.model_copy(update={"metrics": metrics})


_Curve = list[tuple[Measured, Point]]


def _known(trial: TrialRecord, metric: str) -> _Curve:
    """What was measured with settings that are known, by samples; with settings unlike the newest there is no more
    than the record of copies tells: those before the first copy are gone."""
    found: _Curve = []
    for place, one in enumerate(trial.curve):
        values, value = _values_at(trial, place), finite(one.metrics.get(metric))
        if values is not None and value is not None:
            found.append((one, Point(trial, values, value)))
    return sorted(found, key=lambda pair: pair[0].samples)


def _values_at(trial: TrialRecord, place: int) -> Mapping[str, Any] | None:
    before = [copy for copy in trial.copies if copy.at <= place]
    if len(before) == len(trial.copies):
        return trial.values
    return before[-1].values if before else None


def _at(curve: _Curve, samples: int) -> Point:
    return [point for one, point in curve if one.samples <= samples][-1]
