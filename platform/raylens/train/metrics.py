"""``metrics.jsonl`` of a run: a line a record, published whole, so that readers never see half a line."""

import json
import time
from typing import Any

from raylens.errors import NotFoundError, TrainingError
from raylens.storage import Store

__all__ = ["MetricsLog", "read_metrics"]

NAME = "metrics.jsonl"


def read_metrics(run: Store) -> list[dict[str, Any]]:
    """All records of a run, in order of step; empty for a run that has none yet.

    Raises:
        TrainingError: a line is not a record.
    """
    try:
        text = run.read_text(NAME)
    except NotFoundError:
        return []
    return [
        _record(line, f"{run.describe()}/{NAME}, line {number}") for number, line in enumerate(text.splitlines(), 1)
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


class MetricsLog:
    """Collects records and publishes them every few seconds; one writer a run."""

    def __init__(self, run: Store, start: int, every_seconds: float = 10.0) -> None:
        self._run = run
        # Steps behind the checkpoint that the run resumes from are trained again, and told again.
        self._records = [record for record in read_metrics(run) if record["step"] <= start]
        self._every = every_seconds
        self._published = time.monotonic()

    def add(self, record: dict[str, Any]) -> None:
        """Take a record; publish if the last time is long ago."""
        self._records.append(record)
        if time.monotonic() - self._published >= self._every:
            self.publish()

    def publish(self) -> None:
        """Write everything now."""
        lines = "".join(json.dumps(record, allow_nan=False) + "\n" for record in self._records)
        self._run.write(NAME, lines.encode())
        self._published = time.monotonic()
