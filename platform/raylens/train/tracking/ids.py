"""``tracking.json`` of a run: the runs of other tools that it continues when it resumes."""

import json
import threading
from typing import Any

from raylens.errors import NotFoundError, StorageError
from raylens.storage import Store

__all__ = ["TrackingIds"]

FILE = "tracking.json"


class TrackingIds:
    """The id of the run in each tool, valid for one place there (a server and an experiment, or a project)."""

    def __init__(self, run: Store) -> None:
        """Read the ids of a run.

        Raises:
            StorageError: the file cannot be read or is damaged.
        """
        self._run = run
        self._lock = threading.Lock()
        self._saved = self._known = _read(run)

    def get(self, tool: str, place: str) -> str | None:
        """Return the id of this run in a place of a tool, or None if it has none there."""
        entry = self._known.get(tool, {})
        return entry["id"] if entry.get("place") == place else None

    def put(self, tool: str, place: str, run_id: str) -> None:
        """Record an id; an id in another place of the tool is forgotten.

        Raises:
            StorageError: the id is recorded, but could not be written; `save` tries again.
        """
        with self._lock:
            self._known = {**self._known, tool: {"place": place, "id": run_id}}
        self.save()

    def save(self) -> None:
        """Write the ids that have not been written.

        Raises:
            StorageError: the store cannot be written to.
        """
        with self._lock:
            if self._known != self._saved:
                self._run.write(FILE, (json.dumps(self._known, indent=1) + "\n").encode())
                self._saved = self._known


def _read(run: Store) -> dict[str, dict[str, str]]:
    try:
        tree = json.loads(run.read_text(FILE))
    except NotFoundError:
        return {}
    except ValueError as error:
        raise _damaged(run, str(error)) from None
    if not isinstance(tree, dict) or not all(_is_entry(entry) for entry in tree.values()):
        raise _damaged(run, "it has no places and ids")
    return tree


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and set(entry) == {"place", "id"} and all(isinstance(x, str) for x in entry.values())


def _damaged(run: Store, why: str) -> StorageError:
    return StorageError(f"{run.describe()}/{FILE} is damaged ({why}): delete it, and other tools will begin new runs")
