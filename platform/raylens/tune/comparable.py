"""The evaluations of trials that can be compared: those after equally many samples."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raylens.report import finite
from raylens.tune.trials import SweepRecord, TrialEvaluation, TrialRecord

__all__ = ["LEAST", "Comparable", "Point", "cleaned", "comparable", "newest"]

LEAST = 8
"""Fewest trials from which the effect of a key is estimated."""
SHARE = 2 / 3
"""Least share of the trials with values that must have reached the samples of the comparison."""


@dataclass(frozen=True)
class Point:
    """A trial with its settings and the value of the metric that it had with them."""

    trial: TrialRecord
    values: Mapping[str, Any]
    metric: float


@dataclass(frozen=True)
class Comparable:
    """The trials of a comparison after equally many samples."""

    samples: int
    """Samples seen by each trial; the newest evaluation up to this number counts."""
    points: Sequence[Point]
    """One point for each trial that has reached this number, in the order of the trials."""
    known: int
    """Number of trials that have a value."""


def comparable(trials: Sequence[TrialRecord], metric: str) -> Comparable | None:
    """Compare trials at the largest number of samples that at least two thirds of those with values have reached.

    Schedulers stop worse trials early, so newest values depend on the length of training as well as on the settings.
    Return None if fewer than `LEAST` trials have reached a common number of samples.
    """
    curves = [curve for trial in trials if (curve := _known(trial, metric))]
    least = max(LEAST, math.ceil(SHARE * len(curves)))
    for samples in sorted({evaluation.samples for curve in curves for evaluation, _ in curve}, reverse=True):
        reached = [curve for curve in curves if curve[0][0].samples <= samples <= curve[-1][0].samples]
        if len(reached) >= least:
            return Comparable(samples, [_at(curve, samples) for curve in reached], len(curves))
    return None


def newest(trials: Sequence[TrialRecord], metric: str) -> list[Point]:
    """Return the newest value of each trial that has one, regardless of the length of its training."""
    return [curve[-1][1] for trial in trials if (curve := _known(trial, metric))]


def cleaned(record: SweepRecord) -> SweepRecord:
    """Remove metrics that are NaN or infinite, which can be neither drawn nor compared."""
    trials = [trial.with_(curve=[_finite(evaluation) for evaluation in trial.curve]) for trial in record.trials]
    return record.model_copy(update={"trials": trials})


def _finite(evaluation: TrialEvaluation) -> TrialEvaluation:
    metrics = {key: value for key, value in evaluation.metrics.items() if finite(value) is not None}
    return evaluation if len(metrics) == len(evaluation.metrics) else evaluation.model_copy(update={"metrics": metrics})


_Curve = list[tuple[TrialEvaluation, Point]]


def _known(trial: TrialRecord, metric: str) -> _Curve:
    """Return the evaluations with known settings, by samples; settings before the first copy are not recorded."""
    curve: _Curve = []
    for number, evaluation in enumerate(trial.curve):
        values, value = _values_at(trial, number), finite(evaluation.metrics.get(metric))
        if values is not None and value is not None:
            curve.append((evaluation, Point(trial, values, value)))
    return sorted(curve, key=lambda pair: pair[0].samples)


def _values_at(trial: TrialRecord, number: int) -> Mapping[str, Any] | None:
    before = [copy for copy in trial.copies if copy.at <= number]
    if len(before) == len(trial.copies):
        return trial.values
    return before[-1].values if before else None


def _at(curve: _Curve, samples: int) -> Point:
    return [point for evaluation, point in curve if evaluation.samples <= samples][-1]
