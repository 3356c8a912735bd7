"""What a run waits for while it waits for machines: said as a warning, each thing once until it changes."""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import ray
from ray.util.placement_group import placement_group_table

from raylens.capacity.autoscaler import autoscaler_status, launches
from raylens.config import RunConfig
from raylens.train.loop.events import News, Restarting, Started, Warned
from raylens.train.ray.resources import placement_of, resource_requests, shortage_text, wanting

__all__ = ["RoomWatch"]

LOOK_SECONDS = 5.0
END_SECONDS = 30.0
BUSY_SECONDS = 30.0
"""So long after the start, or a restart, workers that are not there are waiting for room."""


class RoomWatch:
    """Inside, looks at the cluster every few seconds, in a thread of its own.

    Args:
        config: of the run.
        tell: is given warnings; called in the thread.
    """

    def __init__(self, config: RunConfig, tell: Callable[[News], object]) -> None:
        self._config, self._tell = config, tell
        self._running, self._since = False, time.monotonic()
        self._told = ""
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, name="raylens-room", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        # It must ask nothing of Ray any more when the session ends.
        self._thread.join(timeout=END_SECONDS)

    def hear(self, news: News) -> None:
        """News of the run, which tell whether its workers are up."""
        if isinstance(news, Started | Restarting):
            self._running, self._since = isinstance(news, Started), time.monotonic()

    def _look(self) -> None:
        while not self._done.wait(LOOK_SECONDS):
            try:
                text = self._waiting_for()
            except (ray.exceptions.RayError, RuntimeError, OSError):
                continue  # who waits for the run hears of it there
            if text and text != self._told:
                self._tell(Warned(text))
            self._told = text

    def _waiting_for(self) -> str:
        missing = wanting(self._config)
        if missing is not None:
            return f"waiting for nodes: {shortage_text(self._config, missing)}{_launches()}"
        if self._running or time.monotonic() - self._since < BUSY_SECONDS or self._is_reserved():
            return ""
        free, total = ray.available_resources(), ray.cluster_resources()
        names = [name for name in ("CPU", "GPU") if total.get(name)]
        shown = " and ".join(f"{free.get(name, 0.0):g} of {total[name]:g} {name}s" for name in names)
        return f"waiting for room: the cluster is large enough, and other work holds it; free are {shown}"

    def _is_reserved(self) -> bool:
        """Whether Ray has set room aside for as many workers: then they are starting."""
        workers, _ = resource_requests(self._config, placement_of(self._config))
        each = {name: float(size) for name, size in workers.each.items() if size}
        for group in placement_group_table().values():
            bundles = list(group["bundles"].values())
            if group["state"] == "CREATED" and len(bundles) >= workers.count and all(one == each for one in bundles):
                return True
        return False


def _launches() -> str:
    """What the autoscaler is about, if there is one."""
    coming, failed = launches(autoscaler_status().autoscaling_state)
    parts = [f"being made: {', '.join(coming)}"] if coming else []
    parts += [f"could not be made: {', '.join(failed)}"] if failed else []
    return f" ({'; '.join(parts)})" if parts else ""
