"""A thread for each tracker, so that one that does not answer delays nothing."""

import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread

from raylens.train.tracking.sink import Outcome, Point, Sink

__all__ = ["SinkThread"]

MOST_WAITING = 10_000
"""Number of records that wait for a slow tracker at most; further ones are dropped."""


class SinkThread:
    """Calls a tracker in order; what fails is not repeated, and the next call is made all the same."""

    def __init__(self, sink: Sink) -> None:
        self.name = sink.name
        self.failure = ""
        """The first failure, in one line; empty if there was none."""
        self._sink = sink
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._given_up = self._closing = False
        self._thread = Thread(target=self._run, name=f"raylens-{sink.name}", daemon=True)

    def start(self) -> None:
        """Start the thread of the tracker."""
        self._thread.start()

    def begin(self, start: int) -> None:
        """Queue a call of `Sink.begin`, and return at once."""
        self._tasks.put(lambda: self._sink.begin(start))

    def add(self, point: Point) -> None:
        """Queue a call of `Sink.add`, and return at once."""
        if self._tasks.qsize() < MOST_WAITING:
            self._tasks.put(lambda: self._sink.add(point))
        else:
            self._failed(f"{MOST_WAITING:,} records wait for it; further ones are dropped")

    def close(self, outcome: Outcome) -> None:
        """Queue a call of `Sink.close`, and return at once; `join` must follow."""
        self._closing = True
        self._tasks.put(lambda: self._sink.close(outcome))
        self._tasks.put(None)

    def join(self, seconds: float) -> None:
        """Wait for the end of the thread; calls left after so many seconds are dropped."""
        self._thread.join(timeout=seconds)
        if self._thread.is_alive():
            self._given_up = True
            self._failed("it had not recorded everything when the run ended")

    def _run(self) -> None:
        due = time.monotonic() + self._sink.every_seconds
        while not self._given_up:
            with suppress(Empty):
                task = self._tasks.get(timeout=max(0.0, due - time.monotonic()))
                if task is None:
                    return
                self._attempt(task)
            # Closing flushes too, and a sink that is closed must not be flushed again.
            if time.monotonic() >= due and not self._closing:
                self._attempt(self._sink.flush)
                due = time.monotonic() + self._sink.every_seconds

    def _attempt(self, task: Callable[[], None]) -> None:
        try:
            task()
        # MLflow and W&B pass on what their transports, plug-ins and helper processes raise, without a common class.
        # None of it may stop the run or end this thread silently.
        except Exception as error:  # noqa: BLE001
            first = (str(error).strip().splitlines() or [""])[0]
            self._failed(f"{type(error).__name__}: {first}" if first else type(error).__name__)

    def _failed(self, why: str) -> None:
        self.failure = self.failure or why
