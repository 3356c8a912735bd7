"""What a tool is told of a run, and what each of them can do with it."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from raylens.evaluate.metrics import Goal
from raylens.train.loop.events import Evaluated, Metrics, News

__all__ = ["HISTOGRAMS", "Outcome", "Point", "Sink", "point_of"]

HISTOGRAMS = ("positive_cosines", "negative_cosines")
"""Keys of a record that hold counts of bins of equal width over [-1, 1]."""

Outcome = Literal["finished", "interrupted", "failed"]


@dataclass(frozen=True)
class Point:
    """Figures after a step, all of them finite."""

    step: int
    scalars: dict[str, float]
    histograms: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """Counts of bins of equal width over [-1, 1]; none is without any count."""
    goals: dict[str, Goal] = field(default_factory=dict)
    """Whether higher or lower is better, for each scalar that is a metric of an evaluation."""


class Sink(Protocol):
    """A tool. All methods are called in one thread of its own, and may take long and raise what they like."""

    name: str
    every_seconds: float
    """How often `flush` is called."""

    def begin(self, start: int) -> None:
        """The steps after ``start`` follow, perhaps again."""
        ...

    def add(self, point: Point) -> None:
        """Take figures."""
        ...

    def flush(self) -> None:
        """Bring everything where others can see it."""
        ...

    def close(self, outcome: Outcome) -> None:
        """Flush, say how the run ended, and let go of everything."""
        ...


def point_of(news: News) -> Point | None:
    """The figures in news, if there are any."""
    if isinstance(news, Metrics):
        record = news.record.as_dict()
        step = int(record.pop("step"))
        counts = {key: tuple(float(count) for count in record.get(key) or ()) for key in HISTOGRAMS}
        return Point(step, _finite(record), {key: each for key, each in counts.items() if any(each)})
    if isinstance(news, Evaluated):
        values = _finite({f"evaluation/{metric.name}": metric.value for metric in news.metrics})
        goals = {key: metric.goal for metric in news.metrics if (key := f"evaluation/{metric.name}") in values}
        return Point(news.step, values | _finite({"evaluation_seconds": news.seconds}), goals=goals)
    return None


def _finite(values: dict[str, Any]) -> dict[str, float]:
    return {
        key: float(value)
        for key, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
