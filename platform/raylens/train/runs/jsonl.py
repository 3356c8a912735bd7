"""``metrics.jsonl`` of a run and its like: a line a record, published whole, so that readers never see half a line."""

import json
import threading
import time
from typing import Any

from raylens.errors import NotFoundError, StorageError, TrainingError
from raylens.storage import Store

__all__ = ["EVALUATIONS", "EVENTS", "METRICS", "JsonlWriter", "json_line", "read_metrics", "read_records"]

METRICS, EVALUATIONS, EVENTS = "metrics.jsonl", "evaluations.jsonl", "events.jsonl"
FLUSH_SECONDS = 60.0


def read_metrics(run: Store) -> list[dict[str, Any]]:
    """All training records of a run, in order of step; empty for a run that has none yet.

    Raises:
        TrainingError: a line is not a record.
    """
    return read_records(run, METRICS)


def read_records(run: Store, name: str) -> list[dict[str, Any]]:
    """All records of a file of a run; empty where there is none.

    Raises:
        TrainingError: a line is not a record.
    """
    try:
        text = run.read_text(name)
    except NotFoundError:
        return []
    return [
        _record(line, f"{run.describe()}/{name}, line {number}") for number, line in enumerate(text.splitlines(), 1)
    ]


def _record(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise TrainingError(
            f"{where} is damaged ({error}): mend or delete the file; no training state is in it"
        ) from None
    if not isinstance(record, dict) or "step" not in record:
        raise TrainingError(f"{where} is no record with a step: mend or delete the file; no training state is in it")
    return record


class JsonlWriter:
    """Collects records and publishes them every few seconds, in a thread of its own; one writer a file.

    A store that does not answer holds nobody up: what was not written is written later.
    """

    def __init__(self, run: Store, name: str, start: int | None, every_seconds: float = 10.0) -> None:
        """Go on behind step ``start``: later steps are trained again, and told again; None keeps all."""
        self._run, self._name, self._every = run, name, every_seconds
        # As text, a fifth of what dictionaries take: a run of weeks has a hundred thousand records.
        self._lines = [json_line(one) for one in read_records(run, name) if start is None or one["step"] <= start]
        self._written = time.monotonic()
        self.failure = ""
        """Why the last writing did not work; empty if it did."""
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, record: dict[str, Any]) -> None:
        """Take a record; publish if the last time is long ago."""
        self._lines.append(json_line(record))
        # All of it is written each time, so more seldom where it is much.
        if time.monotonic() - self._written >= self._every * (1 + len(self._lines) // 1000):
            self.publish()

    def publish(self) -> None:
        """Begin to write everything; nothing happens while the time before is still being written."""
        if self._thread is not None and self._thread.is_alive():
            return
        self._written = time.monotonic()
        self._thread = threading.Thread(target=self._write, args=(self._text(),), name="raylens-log", daemon=True)
        self._thread.start()

    def flush(self) -> str:
        """Write everything now; why it did not work, or nothing."""
        if self._thread is not None:
            self._thread.join(timeout=FLUSH_SECONDS)
        self._write(self._text())
        return self.failure

    def _text(self) -> bytes:
        return b"".join(self._lines)

    def _write(self, text: bytes) -> None:
        with self._lock:
            try:
                self._run.write(self._name, text)
                self.failure = ""
            except StorageError as error:
                self.failure = str(error)


def json_line(record: dict[str, Any]) -> bytes:
    """A record as it stands in a file."""
    return json.dumps(record, allow_nan=False).encode() + b"\n"
