"""All trackers of a run, behind one interface."""

import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from raylens.config import RunConfig, TrackingConfig
from raylens.storage import Store
from raylens.train.loop.events import RunEvent, Started
from raylens.train.tracking.ids import TrackingIds
from raylens.train.tracking.mlflow_run import MlflowRun
from raylens.train.tracking.prometheus import Prometheus
from raylens.train.tracking.sink import Outcome, Sink, point_of
from raylens.train.tracking.sink_thread import SinkThread
from raylens.train.tracking.tensorboard import TensorBoard
from raylens.train.tracking.wandb_run import WandbRun

__all__ = ["Trackers"]

END_SECONDS = 60.0
"""Seconds for which all trackers together are waited for at the end of a run."""


class Trackers:
    """Forwards events to all trackers that a configuration names, each in a thread of its own.

    No tracker stops a run: a failure is reported once for each tracker, and the next record is sent all the same.
    """

    def __init__(self, config: TrackingConfig, run: RunConfig, store: Store, warn: Callable[[str], None]) -> None:
        """Create the trackers; nothing is written or sent before the block is entered.

        Args:
            config: which trackers the run has.
            run: its name and settings, for trackers that keep them.
            store: the folder of the run.
            warn: receives one line, in the thread that calls `on_event` or leaves the block.

        Raises:
            ConfigError: a package is not installed, or W&B is to be online and nobody is logged in.
            StorageError: ``tracking.json`` of the run cannot be read.
        """
        self._threads = [SinkThread(sink) for sink in _sinks(config, run, store)]
        self._warn = warn
        self._warned: set[str] = set()

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        outcome = _outcome(error)
        for thread in self._threads:
            thread.close(outcome)
        deadline = time.monotonic() + END_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._report()

    def on_event(self, event: RunEvent) -> None:
        """Forward an event, and return at once."""
        point = point_of(event)
        for thread in self._threads:
            if isinstance(event, Started):
                thread.begin(event.start)
            elif point is not None:
                thread.add(point)
        self._report()

    def _report(self) -> None:
        for thread in self._threads:
            if thread.failure and thread.name not in self._warned:
                self._warned.add(thread.name)  # first, because the warning may come back here as an event
                self._warn(
                    f"{thread.name} lacks a part of this run ({thread.failure}); training continues, and "
                    "the next records are sent"
                )


def _sinks(config: TrackingConfig, run: RunConfig, store: Store) -> Iterator[Sink]:
    if config.tensorboard:
        yield TensorBoard(store)
    if config.prometheus:
        yield Prometheus(run.name)
    if config.mlflow is None and config.wandb is None:
        return
    ids = TrackingIds(store)
    if config.mlflow is not None:
        yield MlflowRun(config.mlflow, run, store, ids)
    if config.wandb is not None:
        yield WandbRun(config.wandb, run, store, ids)


def _outcome(error: BaseException | None) -> Outcome:
    if error is None:
        return "finished"
    return "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
