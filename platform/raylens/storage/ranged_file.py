"""An object of a store as a binary file that can be read from any place."""

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from raylens.storage.base import Store

__all__ = ["BLOCK_BYTES", "RangedFile"]

BLOCK_BYTES = 8 * 2**20
"""Asked for at once, at most: enough to hide a request's latency, little enough for many open files."""
SMALLEST_BYTES = 64 * 2**10
"""Asked for at once, at least: fewer bytes take as long."""


class RangedFile(io.RawIOBase):
    """Reads by `Store.read_range`, one block held at a time; for one thread.

    Whoever reads on from the beginning gets whole blocks read ahead. Who jumps gets what was asked for, and more with
    each read that goes on where the last block ended, so that a Parquet file's columns cost little more than
    themselves.

    Raises, when read:
        NotFoundError: there is no such object.
        ChangedError: it has another version.
        StorageError: it is shorter than ``size``.
    """

    def __init__(self, store: "Store", path: str, size: int, version: str | None = None) -> None:
        super().__init__()
        self._store, self._path, self._size, self._version = store, path, size, version
        self._position = 0
        self._block_start, self._block = 0, b""
        self._ahead = BLOCK_BYTES

    @property
    def name(self) -> str:
        """For people: where the object is."""
        return f"{self._store.describe()}/{self._path}"

    def readable(self) -> bool:
        """Always."""
        self._checkClosed()
        return True

    def seekable(self) -> bool:
        """Always."""
        self._checkClosed()
        return True

    def tell(self) -> int:
        """The position in bytes."""
        self._checkClosed()
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move; behind the end is allowed, and reads nothing there.

        Raises:
            ValueError: ``offset`` from the start is negative, or ``whence`` unknown.
        """
        self._checkClosed()
        if whence == io.SEEK_SET and offset < 0:
            raise ValueError(f"negative seek value {offset}")
        origins = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}
        if whence not in origins:
            raise ValueError(f"invalid whence ({whence}, should be 0, 1 or 2)")
        self._position = max(0, origins[whence] + offset)
        return self._position

    def readinto(self, buffer: "Buffer", /) -> int:
        """Fill the buffer; fewer bytes come only at the end."""
        self._checkClosed()
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view) and self._position < self._size:
            part = self._here(len(view) - done)
            view[done : done + len(part)] = part
            done += len(part)
            self._position += len(part)
        return done

    def readall(self) -> bytes:
        """All from here to the end."""
        return self.read(max(0, self._size - self.tell())) or b""

    def close(self) -> None:
        """Let go of the block."""
        self._block = b""
        super().close()

    def _here(self, wanted: int) -> memoryview:
        """From the position, at least one byte and at most ``wanted``."""
        if not self._block_start <= self._position < self._block_start + len(self._block):
            self._fetch(wanted)
        start = self._position - self._block_start
        return memoryview(self._block)[start : start + wanted]

    def _fetch(self, wanted: int) -> None:
        if self._position == self._block_start + len(self._block):
            ahead = self._ahead
            self._ahead = min(BLOCK_BYTES, 2 * ahead)
        else:
            ahead = self._ahead = SMALLEST_BYTES
        length = min(max(wanted, ahead), BLOCK_BYTES, self._size - self._position)
        self._block = b""  # two blocks at a time would be one too many
        self._block_start = self._position
        self._block = self._store.read_range(self._path, self._position, length, version=self._version)
