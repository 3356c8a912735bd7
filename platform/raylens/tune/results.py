"""Which configuration is the best, and how sure that is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from raylens.evaluate.metrics import Goal, cost
from raylens.tune.trials import TrialRecord

__all__ = ["Configuration", "Verdict", "configurations", "ranked", "verdict"]

LEVEL = 0.95


@dataclass(frozen=True)
class Configuration:
    """All trials of one configuration."""

    number: int
    trials: tuple[TrialRecord, ...]
    metric: str
    goal: Goal

    @property
    def values(self) -> dict[str, object]:
        """Of the searched keys."""
        return self.trials[0].values

    @property
    def results(self) -> list[float]:
        """The newest value of each trial that has one."""
        return [value for trial in self.trials if (value := trial.value(self.metric)) is not None]

    @property
    def mean(self) -> float | None:
        """Over repeats."""
        return float(np.mean(self.results)) if self.results else None

    @property
    def cost(self) -> float:
        """The mean, negated where higher is better; infinite, which is the worst, where there is none."""
        return math.inf if self.mean is None else cost(self.mean, self.goal)

    @property
    def interval(self) -> tuple[float, float] | None:
        """95% for the mean over seeds (Student's t); None with less than two repeats."""
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
        """How far its least trained repeat is."""
        return min((trial.last.samples if trial.last else 0) for trial in self.trials)

    @property
    def best_trial(self) -> TrialRecord:
        """The repeat with the best value; the first without any."""
        values = [(trial.value(self.metric), trial) for trial in self.trials]
        valued = [(cost(value, self.goal), trial) for value, trial in values if value is not None]
        return min(valued, key=lambda pair: pair[0], default=(0.0, self.trials[0]))[1]


def configurations(trials: Sequence[TrialRecord], metric: str, goal: Goal) -> list[Configuration]:
    """Trials by configuration, in the order of their numbers."""
    numbers = sorted({trial.number for trial in trials})
    return [
        Configuration(number, tuple(trial for trial in trials if trial.number == number), metric, goal)
        for number in numbers
    ]


def ranked(trials: Sequence[TrialRecord], metric: str, goal: Goal) -> list[Configuration]:
    """Configurations with a value, the best first.

    Those trained to the end go before those that were not, because values after other numbers of samples cannot be
    compared; of those, whoever got further goes first.
    """
    known = [one for one in configurations(trials, metric, goal) if one.mean is not None]
    return sorted(known, key=lambda one: (not one.finished, 0 if one.finished else -one.samples, one.cost))


@dataclass(frozen=True)
class Verdict:
    """The best beside the runner-up."""

    best: Configuration
    second: Configuration | None
    p: float | None
    """Of Welch's t-test that their means are equal; None without two repeats of each."""

    @property
    def distinguishable(self) -> bool | None:
        """None where nothing tells."""
        return None if self.p is None else self.p < 1 - LEVEL

    @property
    def text(self) -> str:
        """In a sentence."""
        if self.second is None:
            return "Nothing was trained as far as the best, so it is compared with nothing."
        names = f"{self.best.trials[0].name} and the runner-up {self.second.trials[0].name}"
        if self.p is None:
            return (
                f"{names} were trained once each: nothing tells their difference from chance. Set repeats to 3 or "
                "more, or train both again with other seeds."
            )
        if self.distinguishable:
            return f"{names} differ by more than chance between seeds (p = {self.p:.2g}, Welch's t-test)."
        return (
            f"{names} cannot be told apart (p = {self.p:.2g}, Welch's t-test): take either, or repeat them more often."
        )


def verdict(trials: Sequence[TrialRecord], metric: str, goal: Goal) -> Verdict | None:
    """Whether the best differs from the runner-up by more than chance; None where nothing has a value."""
    order = ranked(trials, metric, goal)
    if not order:
        return None
    alike = [one for one in order[1:] if one.finished == order[0].finished and one.samples == order[0].samples]
    second = alike[0] if alike else None
    if second is None or min(len(order[0].results), len(second.results)) < 2:
        return Verdict(order[0], second, None)
    return Verdict(order[0], second, _welch(order[0].results, second.results))


def _welch(first: Sequence[float], second: Sequence[float]) -> float:
    """p of Welch's t-test; repeats that are all equal have no spread, which the formula divides by."""
    if len(set(first)) == len(set(second)) == 1:
        return float(first[0] == second[0])
    (m1, s1, n1), (m2, s2, n2) = ((np.mean(one), np.std(one, ddof=1), len(one)) for one in (first, second))
    return float(stats.ttest_ind_from_stats(m1, s1, n1, m2, s2, n2, equal_var=False).pvalue)
