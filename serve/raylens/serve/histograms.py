"""Counts of values in buckets, which add up: replicas keep them, and gateways put them together for Prometheus."""

import threading
from bisect import bisect_left
from collections.abc import Sequence
from typing import Literal, Self

__all__ = ["BOUNDS", "SECONDS", "Histogram", "Measure", "Meter"]

Measure = Literal["prepare", "queue", "compute", "batch"]
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
BOUNDS: dict[Measure, Sequence[float]] = {
    "prepare": SECONDS,
    "queue": SECONDS,
    "compute": SECONDS,
    "batch": (1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
}
"""Seconds until an image is decoded or a list of texts tokenised, until an item is in a batch, and of a batch; items of
a batch."""


class Histogram:
    """How many values were at most each bound, the rest, and the sum of all."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def merge(self, other: Self) -> None:
        """Count all that another one of the same bounds has counted."""
        self.counts = [one + more for one, more in zip(self.counts, other.counts, strict=True)]
        self.total += other.total


class Meter:
    """What a tower measures; for any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._histograms: dict[Measure, Histogram] = {}

    def add(self, measure: Measure, *values: float) -> None:
        """Count values."""
        with self._lock:
            histogram = self._histograms.setdefault(measure, Histogram(BOUNDS[measure]))
            for value in values:
                histogram.add(value)

    def drain(self) -> dict[Measure, Histogram]:
        """What was counted since the last call: each value is told once."""
        with self._lock:
            told, self._histograms = self._histograms, {}
        return told
