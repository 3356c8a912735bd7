"""The runs of a storage, in one line each."""

import contextlib
import json
from collections.abc import Mapping, Sequence

from raylens.errors import ChangedError, NotFoundError, StorageError, TrainingError
from raylens.storage import ObjectInfo, Store
from raylens.train.checkpoint.store import COMPLETE
from raylens.train.runs.jsonl import METRICS, read_metrics
from raylens.train.runs.run_dir import CONFIG, Row, RunFiles, RunSummary, by_step

__all__ = ["UNREADABLE", "list_runs"]

UNREADABLE = "unreadable"
"""State of a run whose files are damaged; its last event is the error."""

TAIL = 256 * 1024
"""Bytes at the end of ``metrics.jsonl`` that listing a run reads."""


def list_runs(storage: Store) -> list[RunSummary]:
    """Return all runs of a storage, by name; of a run's metrics only the end is read.

    Raises:
        StorageError: the storage does not answer.
    """
    objects = {info.path: info for info in storage.list()}
    names = [path.split("/")[0] for path in objects if path.count("/") == 1 and path.endswith(f"/{CONFIG}")]
    return [_summary(storage, name, objects) for name in sorted(names)]


def _summary(storage: Store, name: str, objects: Mapping[str, ObjectInfo]) -> RunSummary:
    run, folder = storage / name, f"{name}/checkpoints/"
    complete = (COMPLETE.fullmatch(path.removeprefix(folder)) for path in objects if path.startswith(folder))
    steps = sorted(int(match.group(1)) for match in complete if match)
    try:
        records = _last_record(run, objects.get(f"{name}/{METRICS}"))
        return RunFiles.of(run, {}, records, steps).summary()
    except (StorageError, TrainingError) as error:
        # One damaged run must not hide the others; its line shows the error.
        return RunSummary(name, UNREADABLE, checkpoint=steps[-1] if steps else None, last_event=str(error))


def _last_record(run: Store, info: ObjectInfo | None) -> Sequence[Row]:
    if info is None:
        return ()
    if info.size > TAIL:
        # A file that was replaced meanwhile, or a last line longer than this, is read as a whole below.
        with contextlib.suppress(ChangedError, NotFoundError, ValueError):
            last = json.loads(run.read_range(METRICS, info.size - TAIL, TAIL, version=info.version).splitlines()[-1])
            if isinstance(last, dict):
                return by_step([last], run, METRICS)
    return by_step(read_metrics(run), run, METRICS)[-1:]
