"""The axis of a searched key or of a metric: where a value lies on it, from 0 to 1, and its ticks."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raylens.evaluate.metrics import finite
from raylens.report.charts import short_text
from raylens.train.runs.scores import figure_text
from raylens.tune.domain import Domain

__all__ = ["LONGEST", "Scale", "Tick", "metric_scale", "scale_of", "shortened", "trials_text", "value_text"]

LONGEST = 16
"""Letters of a tick."""
FENCE = 3.0
"""Times the distance between quartiles; Tukey 1977's mark of what is far out."""


@dataclass(frozen=True)
class Tick:
    """A mark of an axis."""

    place: float
    """From 0 to 1."""
    text: str
    full: str = ""
    """Where ``text`` is shortened, all of it."""


@dataclass(frozen=True)
class Scale:
    """A range, or a list of values in equal distances."""

    low: float = 0.0
    high: float = 1.0
    """More than ``low``."""
    logarithmic: bool = False
    whole: bool = False
    values: tuple[Any, ...] | None = None
    """Of a list; None for a range."""

    def place(self, value: object) -> float | None:
        """From 0 to 1; None for what is not on the axis, at an end for a number that is beyond it."""
        if self.values is not None:
            found = next((at for at, one in enumerate(self.values) if one == value), None)
            return None if found is None else (found + 0.5) / len(self.values)
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
        """In how many equal parts a heat map cuts it: one for each value of a list."""
        return most if self.values is None else len(self.values)

    def ticks(self, most: int = 5, longest: int = LONGEST) -> list[Tick]:
        """Round numbers within the range, or the values of the list in at most ``longest`` letters."""
        if self.values is not None:
            return _category_ticks(self.values, most, longest)
        numbers = _log_numbers(self.low, self.high, most) if self.logarithmic else self._even_numbers(most)
        places = [(number, self.place(number)) for number in numbers if self.low <= number <= self.high]
        return [Tick(place, short_text(number)) for number, place in places if place is not None]

    def _even_numbers(self, most: int) -> list[float]:
        from matplotlib.ticker import MaxNLocator

        locator = MaxNLocator(nbins=most, steps=[1, 2, 2.5, 5, 10], integer=self.whole)
        return [float(number) for number in locator.tick_values(self.low, self.high)]


def scale_of(domain: Domain) -> Scale:
    """The axis of a searched key."""
    if domain.span is None:
        values = domain.values
        numbers = all(finite(value) is not None for value in values)
        return Scale(values=tuple(sorted(values) if numbers else values))
    low, high = domain.span
    return Scale(low, high, domain.logarithmic, domain.whole)


def metric_scale(values: Sequence[float], lower: bool, room: float = 0.04) -> Scale:
    """The axis of a metric, of which a few values that are far worse than the rest do not squeeze the others.

    Args:
        values: finite; may be empty.
        lower: whether lower is better, so that the upper end is the worse.
        room: share of the range that is left free at both ends.
    """
    if not len(values):
        return Scale()
    value_N = np.asarray(values, np.float64)
    quarter, three = np.quantile(value_N, (0.25, 0.75))
    far = FENCE * (three - quarter)
    if far > 0:
        value_N = value_N[value_N <= three + far] if lower else value_N[value_N >= quarter - far]
    low, high = float(value_N.min()), float(value_N.max())
    beyond = room * (high - low) if high > low else 0.05 * abs(high) or 0.5
    return Scale(low - beyond, high + beyond)


def value_text(value: object) -> str:
    """A value of a configuration as JSON has it; numbers in four digits, texts without quotes."""
    if finite(value) is not None:
        return figure_text(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def shortened(text: str, longest: int = LONGEST) -> str:
    """With an ellipsis in place of what does not fit."""
    return text if len(text) <= longest else f"{text[: longest - 1].rstrip()}…"


def trials_text(count: int) -> str:
    """``1 trial``, ``1,234 trials``."""
    return f"{count:,} trial{'s' if count != 1 else ''}"


def _category_ticks(values: Sequence[object], most: int, longest: int) -> list[Tick]:
    texts = [value_text(value) for value in values]
    short = [shortened(text, longest) for text in texts]
    # Two that begin alike would read alike.
    short = [
        f"{shortened(text, max(2, longest - 3))} {at + 1}" if short.count(text) > 1 else text
        for at, text in enumerate(short)
    ]
    every = math.ceil(len(values) / max(most, 12))
    return [
        Tick((at + 0.5) / len(values), text, full)
        for at, (text, full) in enumerate(zip(short, texts, strict=True))
        if at % every == 0
    ]


def _log_numbers(low: float, high: float, most: int) -> list[float]:
    """Powers of ten; with less than two of them in the range, also those times two and five; else the ends."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = max(1, math.ceil((last - first) / most))
    for times in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0)):
        numbers = [one * 10.0**power for power in range(first, last + 1, every) for one in times]
        inside = [number for number in numbers if low <= number <= high]
        if len(inside) >= 3:
            return inside
    return inside if len(inside) >= 2 else [low, high]
