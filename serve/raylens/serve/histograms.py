"""Histograms that can be merged: replicas count values in them, and gateways add them up for Prometheus."""

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
"""Upper bounds of the buckets: seconds to prepare (decode an image, tokenise texts), to queue and to compute a batch;
and the number of items of a batch."""


class Histogram:
    """The number of values in each bucket, those above the last bound, and the sum of all values."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count a value in its bucket."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def merge(self, other: Self) -> None:
        """Add the counts of another histogram with the same bounds."""
        self.counts = [own + more for own, more in zip(self.counts, other.counts, strict=True)]
        self.total += other.total


class Meter:
    """The histograms of a tower; safe in any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._histograms: dict[Measure, Histogram] = {}

    def add(self, measure: Measure, *values: float) -> None:
        """Count values of a measure."""
        with self._lock:
            histogram = self._histograms.setdefault(measure, Histogram(BOUNDS[measure]))
            for value in values:
                histogram.add(value)

    def drain(self) -> dict[Measure, Histogram]:
        """Return what was counted since the last call, so that each value is reported once."""
        with self._lock:
            counted, self._histograms = self._histograms, {}
        return counted
