"""``metrics.jsonl`` of a run and similar files: one record per line, published whole, so that no line is incomplete."""

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
    """Return all training records of a run, in order of step; empty for a run without records.

    Raises:
        TrainingError: a line is not a record.
    """
    return read_records(run, METRICS)


def read_records(run: Store, name: str) -> list[dict[str, Any]]:
    """Return all records of a file of a run; empty if there is no such file.

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
            f"{where} is damaged ({error}): repair or delete the file, which holds no training state"
        ) from None
    if not isinstance(record, dict) or "step" not in record:
        raise TrainingError(
            f"{where} is not a record with a step: repair or delete the file, which holds no training state"
        )
    return record


class JsonlWriter:
    """Collects records and publishes them every few seconds, in a thread; each file has one writer.

    A store that does not answer delays nothing: what could not be written is written later.
    """

    def __init__(self, run: Store, name: str, start: int | None, every_seconds: float = 10.0) -> None:
        """Continue after step ``start``, whose successors are trained and written again; None keeps all records."""
        self._run, self._name, self._every = run, name, every_seconds
        # Lines take a fifth of the memory of dictionaries, and a run of weeks has a hundred thousand records.
        self._lines = [
            json_line(record) for record in read_records(run, name) if start is None or record["step"] <= start
        ]
        self._written = time.monotonic()
        self.failure = ""
        """Why the last attempt to write failed; empty if it succeeded."""
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, record: dict[str, Any]) -> None:
        """Add a record, and publish if the last time is long enough ago."""
        self._lines.append(json_line(record))
        # The whole file is written each time, so that a larger one is written less often.
        if time.monotonic() - self._written >= self._every * (1 + len(self._lines) // 1000):
            self.publish()

    def publish(self) -> None:
        """Start to write everything, unless the previous attempt is still in progress."""
        if self._thread is not None and self._thread.is_alive():
            return
        self._written = time.monotonic()
        self._thread = threading.Thread(target=self._write, args=(self._text(),), name="raylens-log", daemon=True)
        self._thread.start()

    def flush(self) -> str:
        """Write everything now, and return why it failed, or an empty string."""
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
    """Return a record as a line of a file."""
    return json.dumps(record, allow_nan=False).encode() + b"\n"
