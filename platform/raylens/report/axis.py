"""The axis of a searched key or of a metric: where a value lies on it, from 0 to 1, and its ticks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raylens.report.numbers import finite, short_text, shortened, value_text

__all__ = ["LONGEST", "Axis", "Tick", "metric_axis"]

LONGEST = 16
"""Most letters in the text of a tick."""
FENCE = 3.0
"""Times the distance between quartiles; Tukey 1977's mark of what is far out."""


@dataclass(frozen=True)
class Tick:
    """A mark of an axis."""

    place: float
    """Where it lies on the axis, from 0 to 1."""
    text: str
    full: str
    """What ``text`` may be a shortened form of."""


@dataclass(frozen=True)
class Axis:
    """A range of numbers, or a list of values in equal distances."""

    low: float = 0.0
    high: float = 1.0
    """The other end, which is more than ``low``."""
    logarithmic: bool = False
    whole: bool = False
    """Whether only whole numbers lie on it."""
    values: tuple[Any, ...] | None = None
    """The values of a list; None for a range."""

    def place(self, value: object) -> float | None:
        """Return where a value lies, from 0 to 1: at an end if it is beyond it, None if it is not on the axis."""
        if self.values is not None:
            at = next((at for at, listed in enumerate(self.values) if listed == value), None)
            return None if at is None else (at + 0.5) / len(self.values)
        number = finite(value)
        if number is None or (self.logarithmic and number <= 0):
            return None
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, number = math.log(low), math.log(high), math.log(number)
        return min(1.0, max(0.0, (number - low) / (high - low)))

    @property
    def numeric(self) -> bool:
        """Whether its values are numbers, which have an order."""
        return self.values is None or all(finite(value) is not None for value in self.values)

    def bins(self, most: int) -> int:
        """Return in how many equal parts a heat map cuts it: one for each value of a list, otherwise ``most``."""
        return most if self.values is None else len(self.values)

    def ticks(self, most: int = 5, longest: int = LONGEST) -> list[Tick]:
        """Return round numbers within the range, or the values of the list in at most ``longest`` letters."""
        if self.values is not None:
            return _category_ticks(self.values, most, longest)
        numbers = _log_numbers(self.low, self.high, most) if self.logarithmic else self._even_numbers(most)
        places = [(number, self.place(number)) for number in numbers if self.low <= number <= self.high]
        return [Tick(place, text := short_text(number), text) for number, place in places if place is not None]

    def _even_numbers(self, most: int) -> list[float]:
        from matplotlib.ticker import MaxNLocator

        locator = MaxNLocator(nbins=most, steps=[1, 2, 2.5, 5, 10], integer=self.whole)
        return [float(number) for number in locator.tick_values(self.low, self.high)]


def metric_axis(values: Sequence[float], lower: bool, margin: float = 0.04) -> Axis:
    """Return the axis of a metric, on which a few values that are far worse than the rest do not squeeze the others.

    Args:
        values: finite; may be empty.
        lower: whether lower is better, so that the upper end is the worse.
        margin: share of the range that is left free at both ends.
    """
    if not len(values):
        return Axis()
    value_N = np.asarray(values, np.float64)
    quarter, three = np.quantile(value_N, (0.25, 0.75))
    far = FENCE * (three - quarter)
    if far > 0:
        value_N = value_N[value_N <= three + far] if lower else value_N[value_N >= quarter - far]
    low, high = float(value_N.min()), float(value_N.max())
    beyond = margin * (high - low) if high > low else 0.05 * abs(high) or 0.5
    return Axis(low - beyond, high + beyond)


def _category_ticks(values: Sequence[object], most: int, longest: int) -> list[Tick]:
    texts = [value_text(value) for value in values]
    short = [shortened(text, longest) for text in texts]
    # Two that begin alike would read alike.
    short = [
        f"{shortened(text, max(2, longest - 3))} {at + 1}" if short.count(text) > 1 else text
        for at, text in enumerate(short)
    ]
    every = math.ceil(len(values) / max(most, 12))
    return [Tick((at + 0.5) / len(values), short[at], texts[at]) for at in range(0, len(values), every)]


def _log_numbers(low: float, high: float, most: int) -> list[float]:
    """Return powers of ten; with fewer than three in the range, also those times 3, or 2 and 5; else the ends."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = max(1, math.ceil((last - first) / most))
    inside: list[float] = []
    for factors in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0)):
        numbers = [factor * 10.0**power for power in range(first, last + 1, every) for factor in factors]
        inside = [number for number in numbers if low <= number <= high]
        if len(inside) >= 3:
            return inside
    return inside if len(inside) >= 2 else [low, high]
