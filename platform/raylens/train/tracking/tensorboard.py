"""Event files for TensorBoard in the run's folder."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from raylens.storage import LocalStore, Store
from raylens.train.tracking.sink import Outcome, Point

if TYPE_CHECKING:
    from raylens.train.tracking.event_file import EventFile

__all__ = ["FOLDER", "TensorBoard"]

FOLDER = "tensorboard"
LARGEST_FILE = 4 << 20
"""Bytes of a file after which a new one is begun, because a bucket is sent whole files each time."""


class TensorBoard:
    """Writes into a local store directly; for a bucket, into a temporary folder that is uploaded regularly."""

    name = "tensorboard"

    def __init__(self, run: Store, every_seconds: float = 30.0) -> None:
        self.every_seconds = every_seconds
        self._store = run / FOLDER
        self._local = Path(self._store.root) if isinstance(self._store, LocalStore) else None
        self._temporary: TemporaryDirectory[str] | None = None
        self._file: EventFile | None = None
        self._purge_step: int | None = None
        self._sent: dict[Path, int] = {}
        """Bytes of each file that the store has; files that it has completely are not included."""

    def begin(self, start: int) -> None:
        """Replace what was written before for the steps after this one."""
        self._file, self._purge_step = None, start + 1

    def add(self, point: Point) -> None:
        """Append to the newest file, or begin one.

        Raises:
            OSError: the file cannot be written, for example because the disk is full.
        """
        if self._file is None or self._file.size > LARGEST_FILE:
            from raylens.train.tracking.event_file import EventFile  # its library imports torch

            self._file = EventFile(self._folder(), self._purge_step)
            self._purge_step = None
            self._sent[self._file.path] = 0
        self._file.add(point)

    def flush(self) -> None:
        """Upload what a bucket does not have yet, the oldest first: readers never return to an older file.

        Raises:
            OSError: a file of the temporary folder is gone.
            StorageError: the bucket cannot be written to.
        """
        if self._local is not None:
            return
        for path, sent in list(self._sent.items()):
            data = path.read_bytes()
            if len(data) > sent:
                self._store.write(path.name, data)
                self._sent[path] = len(data)
            if self._file is None or path != self._file.path:
                del self._sent[path]
                path.unlink()

    def close(self, outcome: Outcome) -> None:
        """Upload as `flush` does; TensorBoard has no state of a run."""
        del outcome
        try:
            self.flush()
        finally:
            if self._temporary is not None:
                self._temporary.cleanup()

    def _folder(self) -> Path:
        if self._local is not None:
            return self._local
        if self._temporary is None:
            self._temporary = TemporaryDirectory(prefix="raylens-tensorboard-", ignore_cleanup_errors=True)
        return Path(self._temporary.name)
