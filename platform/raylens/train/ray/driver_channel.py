"""The channel between a run's workers and its driver: events in one direction, requests in the other."""

from collections.abc import Callable
from threading import Event, Thread
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raylens.train.loop.events import RunEvent

__all__ = ["EventForwarder", "open_channel"]

POLL_SECONDS = 0.5
LOOK_SECONDS = 10


class DriverChannel:
    """An actor that keeps events until the driver has received them, and the driver's requests to the workers."""

    def __init__(self) -> None:
        self._news: list[RunEvent] = []
        self._first = 0
        self._start = 0
        self._stop = False

    def begin_at(self, step: int) -> None:
        """Set the step after which the stream of data begins, which is where the workers must begin."""
        self._start = step

    def start(self) -> int:
        return self._start

    def stop(self) -> None:
        self._stop = True

    def is_to_stop(self) -> bool:
        return self._stop

    def post(self, event: RunEvent) -> None:
        self._news.append(event)

    def after(self, arrived: int) -> list[RunEvent]:
        """Return all events but the first ``arrived``, and forget those."""
        self._news, self._first = self._news[arrived - self._first :], arrived
        return self._news


def open_channel() -> Any:
    """Create a channel for a run; it uses no CPU of the cluster and runs on the node of the caller."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(DriverChannel).remote()


class EventForwarder:
    """Forwards the events of a channel to a function that never raises, in a thread, within a block."""

    def __init__(self, source: Any, on_event: Callable[[RunEvent], None]) -> None:
        self._source = source
        self._on_event = on_event
        self._done = Event()
        self._thread = Thread(target=self._listen, name="raylens-events", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(timeout=2 * LOOK_SECONDS)

    def _listen(self) -> None:
        last, arrived = False, 0
        while not last:
            last = self._done.wait(POLL_SECONDS)  # poll once more after the end, for the last events
            try:
                events = ray.get(self._source.after.remote(arrived), timeout=LOOK_SECONDS)
            except ray.exceptions.GetTimeoutError:
                continue  # the machine is busy
            except ray.exceptions.RayError:
                return  # the cluster is gone, which the caller of the run learns elsewhere
            arrived += len(events)
            for event in events:
                self._on_event(event)
