"""Gauges that Ray exports for Prometheus, on the metrics port of the node where the run was started."""

import functools
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

    def begin(self, start: int) -> None:
        """Nothing: a gauge has the newest value only."""

    def add(self, point: Point) -> None:
        """Set all gauges of a step, that of the step among them."""
        if not ray.is_initialized():
            return
        cluster = ray.get_runtime_context().gcs_address
        for key, value in {"step": float(point.step), **point.scalars}.items():
            _gauge(cluster, key).set(value, tags=self._tags)

    def flush(self) -> None:
        """Nothing: Ray collects gauges itself."""

    def close(self, outcome: Outcome) -> None:
        """Nothing: Ray forgets the gauges when this process ends."""


@functools.cache
def _gauge(cluster: str, key: str) -> Any:  # noqa: ARG001
    """The gauge of a figure in a cluster, kept until this process ends.

    Ray collects gauges every ten seconds, and forgets one that is freed: the last figures of a run would be seen by
    nobody, or for seconds.
    """
    name = PREFIX + re.sub(r"\W", "_", key, flags=re.ASCII)
    return Gauge(name, f"{key} of a training run", tag_keys=("run",))
