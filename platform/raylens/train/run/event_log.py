"""``events.jsonl`` of a run: when it started, was restarted, saved and ended, as whoever started it heard."""

from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from raylens.storage import Store
from raylens.train.loop.events import Checkpointed, Evaluated, Metrics, News, Restarting, Started, Stopping, Warned
from raylens.train.runs.jsonl import EVENTS, RecordLog

__all__ = ["Events"]


class Events:
    """Writes down news."""

    def __init__(self, run: Store) -> None:
        self._log = RecordLog(run, EVENTS, None, every_seconds=2.0)
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

    def tell(self, news: News) -> None:
        """News of the workers."""
        if isinstance(news, Metrics):
            self._step = news.record.step
        elif isinstance(news, Started):
            self._note("started", news.start, f"{news.workers} workers, {news.steps} steps")
        elif isinstance(news, Checkpointed):
            self._note("checkpointed", news.step, "")
        elif isinstance(news, Evaluated):
            self._note("evaluated", news.step, " ".join(f"{one.name} {one.value:.4g}" for one in news.metrics))
        elif isinstance(news, Restarting):
            self._note("restarting", self._step, news.reason)
        elif isinstance(news, Stopping):
            self._note("stopping", news.step, "")
        elif isinstance(news, Warned):
            self._note("warning", self._step, news.text)

    def _note(self, event: str, step: int | None, text: str) -> None:
        self._step = step
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._log.add({"time": now, "event": event, "step": step, "text": text})
