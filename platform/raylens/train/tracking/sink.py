"""The interface of a tracker, and the values that it receives."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from raylens.evaluate import Goal
from raylens.train.loop.events import Evaluated, Metrics, RunEvent

__all__ = ["HISTOGRAMS", "Outcome", "Point", "Sink", "point_of"]

HISTOGRAMS = ("positive_cosines", "negative_cosines")
"""Keys of a record that hold counts of equal bins over [-1, 1]."""

Outcome = Literal["finished", "interrupted", "failed"]


@dataclass(frozen=True)
class Point:
    """The values after a step; all of them are finite."""

    step: int
    scalars: dict[str, float]
    histograms: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """Counts of equal bins over [-1, 1]; no histogram is empty."""
    goals: dict[str, Goal] = field(default_factory=dict)
    """Goal of each scalar that is a metric of an evaluation: whether higher or lower is better."""


class Sink(Protocol):
    """Protocol of a tracker; its methods are called in one thread of its own, and may block or raise any exception."""

    name: str
    every_seconds: float
    """Seconds between two calls of `flush`."""

    def begin(self, start: int) -> None:
        """Prepare for the steps after ``start``, some of which may have been recorded before."""
        ...

    def add(self, point: Point) -> None:
        """Record the values of a step."""
        ...

    def flush(self) -> None:
        """Make all recorded values visible to others."""
        ...

    def close(self, outcome: Outcome) -> None:
        """Flush, record how the run ended, and release all resources."""
        ...


def point_of(event: RunEvent) -> Point | None:
    """Return the values of an event, or None if it has none."""
    if isinstance(event, Metrics):
        record = event.record.as_dict()
        step = int(record.pop("step"))
        counts = {key: tuple(float(count) for count in record.get(key) or ()) for key in HISTOGRAMS}
        return Point(step, _finite(record), {key: each for key, each in counts.items() if any(each)})
    if isinstance(event, Evaluated):
        values = _finite({f"evaluation/{metric.name}": metric.value for metric in event.metrics})
        goals = {key: metric.goal for metric in event.metrics if (key := f"evaluation/{metric.name}") in values}
        return Point(event.step, values | _finite({"evaluation_seconds": event.seconds}), goals=goals)
    return None


def _finite(values: dict[str, Any]) -> dict[str, float]:
    return {
        key: float(value)
        for key, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
