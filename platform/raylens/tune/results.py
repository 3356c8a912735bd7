"""The ranking of configurations, and the confidence in the best one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from raylens.evaluate import Goal, cost
from raylens.tune.trials import TrialRecord

__all__ = ["Configuration", "Verdict", "configurations", "ranked", "verdict"]

LEVEL = 0.95


@dataclass(frozen=True)
class Configuration:
    """A configuration with its trials (repeats)."""

    number: int
    trials: tuple[TrialRecord, ...]
    metric: str
    goal: Goal

    @property
    def values(self) -> dict[str, object]:
        """Values of the searched keys."""
        return self.trials[0].values

    @property
    def results(self) -> list[float]:
        """The newest value of each trial that has one."""
        return [value for trial in self.trials if (value := trial.value(self.metric)) is not None]

    @property
    def mean(self) -> float | None:
        """Mean of the results over repeats."""
        return float(np.mean(self.results)) if self.results else None

    @property
    def cost(self) -> float:
        """The mean, negated if higher is better; infinite, the worst value, if there is none."""
        return math.inf if self.mean is None else cost(self.mean, self.goal)

    @property
    def interval(self) -> tuple[float, float] | None:
        """95% confidence interval of the mean over seeds (Student's t); None with fewer than two results."""
        if len(self.results) < 2:
            return None
        half = float(stats.sem(self.results) * stats.t.ppf((1 + LEVEL) / 2, len(self.results) - 1))
        mean = float(np.mean(self.results))
        return mean - half, mean + half

    @property
    def finished(self) -> bool:
        """Whether every repeat was trained to its end."""
        return all(trial.state == "finished" for trial in self.trials)

    @property
    def samples(self) -> int:
        """Samples seen by the repeat that was trained least."""
        return min((trial.last.samples if trial.last else 0) for trial in self.trials)

    @property
    def best_trial(self) -> TrialRecord:
        """The repeat with the best value; the first one if none has a value."""
        values = [(trial.value(self.metric), trial) for trial in self.trials]
        valued = [(cost(value, self.goal), trial) for value, trial in values if value is not None]
        return min(valued, key=lambda pair: pair[0], default=(0.0, self.trials[0]))[1]


def configurations(trials: Sequence[TrialRecord], metric: str, goal: Goal) -> list[Configuration]:
    """Group trials by configuration, in the order of their numbers."""
    numbers = sorted({trial.number for trial in trials})
    return [
        Configuration(number, tuple(trial for trial in trials if trial.number == number), metric, goal)
        for number in numbers
    ]


def ranked(trials: Sequence[TrialRecord], metric: str, goal: Goal) -> list[Configuration]:
    """Return the configurations with a value, the best first.

    Configurations trained to the end come before others, because values after different numbers of samples are not
    comparable; of the others, those trained longer come first.
    """
    valued = [each for each in configurations(trials, metric, goal) if each.mean is not None]
    return sorted(valued, key=lambda each: (not each.finished, 0 if each.finished else -each.samples, each.cost))


@dataclass(frozen=True)
class Verdict:
    """The comparison of the best configuration with the runner-up."""

    best: Configuration
    second: Configuration | None
    p: float | None
    """p-value of Welch's t-test that the means are equal; None without two repeats of each."""

    @property
    def distinguishable(self) -> bool | None:
        """Whether the difference exceeds chance; None without a test."""
        return None if self.p is None else self.p < 1 - LEVEL

    @property
    def text(self) -> str:
        """The result of the comparison in a sentence."""
        if self.second is None:
            return "No other configuration was trained as long as the best, so it is not compared."
        names = f"{self.best.trials[0].name} and the runner-up {self.second.trials[0].name}"
        if self.p is None:
            return (
                f"{names} were trained once each, so their difference may be chance. Set repeats to 3 or more, or "
                "train both again with other seeds."
            )
        if self.distinguishable:
            return f"{names} differ by more than chance between seeds (p = {self.p:.2g}, Welch's t-test)."
        return f"{names} do not differ significantly (p = {self.p:.2g}, Welch's t-test): take either, or raise repeats."


def verdict(trials: Sequence[TrialRecord], metric: str, goal: Goal) -> Verdict | None:
    """Test whether the best differs from the runner-up by more than chance; None if no trial has a value."""
    order = ranked(trials, metric, goal)
    if not order:
        return None
    alike = [each for each in order[1:] if each.finished == order[0].finished and each.samples == order[0].samples]
    second = alike[0] if alike else None
    if second is None or min(len(order[0].results), len(second.results)) < 2:
        return Verdict(order[0], second, None)
    return Verdict(order[0], second, _welch(order[0].results, second.results))


def _welch(first: Sequence[float], second: Sequence[float]) -> float:
    """Return p of Welch's t-test; if all repeats are equal, their variance is 0 and the formula does not apply."""
    if len(set(first)) == len(set(second)) == 1:
        return float(first[0] == second[0])
    (m1, s1, n1), (m2, s2, n2) = ((np.mean(values), np.std(values, ddof=1), len(values)) for values in (first, second))
    return float(stats.ttest_ind_from_stats(m1, s1, n1, m2, s2, n2, equal_var=False).pvalue)
