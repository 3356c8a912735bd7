"""Warnings about the resources that a run waits for, each given once until it changes."""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import ray
from ray.util.placement_group import placement_group_table

from raylens.capacity import autoscaler_status, launches
from raylens.config import RunConfig
from raylens.train.loop.events import Restarting, RunEvent, Started, Warned
from raylens.train.ray.resources import current_shortage, placement_of, resource_requests, shortage_text

__all__ = ["ResourceMonitor"]

LOOK_SECONDS = 5.0
END_SECONDS = 30.0
BUSY_SECONDS = 30.0
"""Seconds after a start or a restart, from which on missing workers count as waiting for resources."""


class ResourceMonitor:
    """Checks the cluster every few seconds, in a thread, within a block.

    Args:
        config: the configuration of the run.
        on_event: receives the warnings, in the thread.
    """

    def __init__(self, config: RunConfig, on_event: Callable[[RunEvent], object]) -> None:
        self._config, self._on_event = config, on_event
        self._running, self._since = False, time.monotonic()
        self._warned = ""
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, name="raylens-resources", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        # It must not call Ray any more when the session ends.
        self._thread.join(timeout=END_SECONDS)

    def on_event(self, event: RunEvent) -> None:
        """Record from an event of the run whether its workers are up."""
        if isinstance(event, Started | Restarting):
            self._running, self._since = isinstance(event, Started), time.monotonic()

    def _look(self) -> None:
        while not self._done.wait(LOOK_SECONDS):
            try:
                text = self._waiting_for()
            except (ray.exceptions.RayError, RuntimeError, OSError):
                continue  # the caller of the run learns it elsewhere
            if text and text != self._warned:
                self._on_event(Warned(text))
            self._warned = text

    def _waiting_for(self) -> str:
        missing = current_shortage(self._config)
        if missing is not None:
            return f"waiting for nodes: {shortage_text(self._config, missing)}{_launches()}"
        if self._running or time.monotonic() - self._since < BUSY_SECONDS or self._is_reserved():
            return ""
        free, total = ray.available_resources(), ray.cluster_resources()
        names = [name for name in ("CPU", "GPU") if total.get(name)]
        shown = " and ".join(f"{free.get(name, 0.0):g} of {total[name]:g} {name}s" for name in names)
        return f"waiting for resources: the cluster is large enough, but other work uses it; {shown} are free"

    def _is_reserved(self) -> bool:
        """Return whether Ray has reserved resources for all workers, which are then starting."""
        workers, _ = resource_requests(self._config, placement_of(self._config))
        each = {name: float(size) for name, size in workers.each.items() if size}
        for group in placement_group_table().values():
            bundles = list(group["bundles"].values())
            if (
                group["state"] == "CREATED"
                and len(bundles) >= workers.count
                and all(bundle == each for bundle in bundles)
            ):
                return True
        return False


def _launches() -> str:
    """Return what the autoscaler is launching and what it failed to launch; empty without an autoscaler."""
    coming, failed = launches(autoscaler_status().autoscaling_state)
    parts = [f"launching: {', '.join(coming)}"] if coming else []
    parts += [f"failed to launch: {', '.join(failed)}"] if failed else []
    return f" ({'; '.join(parts)})" if parts else ""
