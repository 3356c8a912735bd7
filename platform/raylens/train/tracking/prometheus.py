"""Gauges that Ray exports for Prometheus, on the metrics port of the node where the run was started."""

import re
from typing import Any

import ray
from ray.util.metrics import Gauge

from raylens.train.tracking.sink import Outcome, Point

__all__ = ["Prometheus"]

PREFIX = "raylens_train_"


class Prometheus:
    """Sets a gauge a figure, tagged with the run's name; does nothing where Ray is not initialised."""

    name = "prometheus"
    every_seconds = 3600.0  # nothing to flush: Ray collects gauges itself

    def __init__(self, run: str) -> None:
        self._tags = {"run": run}
        self._gauges: dict[str, Any] = {}

    def begin(self, start: int) -> None:
        """Nothing: a gauge has the newest value only."""

    def add(self, point: Point) -> None:
        """Set all gauges of a step, that of the step among them."""
        if not ray.is_initialized():
            return
        for key, value in {"step": float(point.step), **point.scalars}.items():
            if key not in self._gauges:
                name = PREFIX + re.sub(r"\W", "_", key, flags=re.ASCII)
                self._gauges[key] = Gauge(name, f"{key} of a training run", tag_keys=("run",))
            self._gauges[key].set(value, tags=self._tags)

    def flush(self) -> None:
        """Nothing: Ray collects gauges itself."""

    def close(self, outcome: Outcome) -> None:
        """Nothing: Ray forgets the gauges when this process ends."""
