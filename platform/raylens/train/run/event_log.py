"""``events.jsonl`` of a run: when it started, restarted, saved, evaluated, warned and ended."""

from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from raylens.storage import Store
from raylens.train.loop.events import Checkpointed, Evaluated, Metrics, Restarting, RunEvent, Started, Stopping, Warned
from raylens.train.runs.jsonl import EVENTS, JsonlWriter

__all__ = ["EventLog"]


class EventLog:
    """Writes the events of a run, and how it ended."""

    def __init__(self, run: Store) -> None:
        self._log = JsonlWriter(run, EVENTS, None, every_seconds=2.0)
        self._step: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._note("finished", self._step, "")
        elif isinstance(error, KeyboardInterrupt):
            self._note("interrupted", self._step, "")
        else:
            self._note("failed", self._step, str(error))
        self._log.flush()

    def on_event(self, event: RunEvent) -> None:
        """Write an event of the workers."""
        if isinstance(event, Metrics):
            self._step = event.record.step
        elif isinstance(event, Started):
            self._note("started", event.start, f"{event.workers} workers, {event.steps} steps")
        elif isinstance(event, Checkpointed):
            self._note("checkpointed", event.step, "")
        elif isinstance(event, Evaluated):
            self._note(
                "evaluated", event.step, " ".join(f"{metric.name} {metric.value:.4g}" for metric in event.metrics)
            )
        elif isinstance(event, Restarting):
            self._note("restarting", self._step, event.reason)
        elif isinstance(event, Stopping):
            self._note("stopping", event.step, "")
        elif isinstance(event, Warned):
            self._note("warning", self._step, event.text)

    def _note(self, event: str, step: int | None, text: str) -> None:
        self._step = step
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._log.add({"time": now, "event": event, "step": step, "text": text})
