"""Gauges that Ray exports to Prometheus, on the metrics port of the node where the run was started."""

import functools
import re
from typing import Any

import ray
from ray.util.metrics import Gauge

from raylens.train.tracking.sink import Outcome, Point

__all__ = ["Prometheus"]

PREFIX = "raylens_train_"


class Prometheus:
    """Sets one gauge for each value, tagged with the run's name; does nothing while Ray is not initialised."""

    name = "prometheus"
    every_seconds = 3600.0  # nothing to flush: Ray collects gauges itself

    def __init__(self, run: str) -> None:
        self._tags = {"run": run}

    def begin(self, start: int) -> None:
        """Do nothing: a gauge only has its newest value."""

    def add(self, point: Point) -> None:
        """Set all gauges of a step, including that of the step itself."""
        if not ray.is_initialized():
            return
        cluster = ray.get_runtime_context().gcs_address
        for key, value in {"step": float(point.step), **point.scalars}.items():
            _gauge(cluster, key).set(value, tags=self._tags)

    def flush(self) -> None:
        """Do nothing: Ray collects the gauges itself."""

    def close(self, outcome: Outcome) -> None:
        """Do nothing: Ray forgets the gauges when this process ends."""


@functools.cache
def _gauge(cluster: str, key: str) -> Any:  # noqa: ARG001
    """Return the gauge of a value in a cluster, which is kept until this process ends.

    Ray collects gauges every ten seconds and forgets one that is freed: without this, the last values of a run would be
    visible for seconds, or never.
    """
    name = PREFIX + re.sub(r"\W", "_", key, flags=re.ASCII)
    return Gauge(name, f"{key} of a training run", tag_keys=("run",))
