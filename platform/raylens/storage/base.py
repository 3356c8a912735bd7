"""The interface of every object store, and a file that reads an object by ranges."""

import abc
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self

from raylens.errors import ChangedError, ConfigError, NotFoundError, StorageError

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem
    from typing_extensions import Buffer

__all__ = [
    "BLOCK_BYTES",
    "ObjectInfo",
    "RangedFile",
    "Store",
    "changed",
    "checked_path",
    "missing_bucket",
    "open_source",
    "short_read",
]

BLOCK_BYTES = 8 * 2**20
"""The most bytes of one request: enough to hide a request's latency, and few enough for many open files."""
SMALLEST_BYTES = 64 * 2**10
"""The fewest bytes of one request, because fewer bytes take as long."""


@dataclass(frozen=True)
class ObjectInfo:
    """Path, size and version of an object in a store."""

    path: str
    """The path relative to the store, with ``/`` between parts."""
    size: int
    """The object's size in bytes."""
    version: str
    """A text that changes with the object: the ETag on S3, size and modification time elsewhere."""


class Store(abc.ABC):
    """The objects under one URI. A store is immutable and small; it makes clients where it is used, so it pickles.

    Paths are relative, with ``/`` between parts; a path that would leave the store raises `ConfigError`.
    """

    @property
    @abc.abstractmethod
    def uri(self) -> str:
        """The canonical and complete URI: `open_store` of it returns an equal store on any machine."""

    @abc.abstractmethod
    def describe(self) -> str:
        """Return the location for messages: a folder's path, ``s3://bucket/prefix`` or ``gs://bucket/prefix``."""

    @abc.abstractmethod
    def __truediv__(self, sub: str) -> Self:
        """Return the store of a folder below this one."""

    @abc.abstractmethod
    def arrow(self) -> "tuple[FileSystem, str]":
        """Return a pyarrow filesystem, and this store's path in it."""

    @abc.abstractmethod
    def read(self, path: str, *, version: str | None = None) -> bytes:
        """Read a whole object; with ``version`` (from `list` or `info`), only if the object still has it.

        Raises:
            NotFoundError: there is no such object.
            ChangedError: the object has another version.
        """

    def read_text(self, path: str) -> str:
        """Read a whole object as UTF-8 text.

        Raises:
            NotFoundError: there is no such object.
            StorageError: the object is not UTF-8.
        """
        try:
            return self.read(path).decode("utf-8")
        except UnicodeDecodeError as error:
            raise StorageError(f"{self.describe()}/{path} is not UTF-8 text: {error.reason} at {error.start}") from None

    @abc.abstractmethod
    def read_range(self, path: str, offset: int, length: int, *, version: str | None = None) -> bytes:
        """Read exactly ``length`` bytes from ``offset``; with ``version``, only if the object still has it.

        Raises:
            NotFoundError: there is no such object.
            ChangedError: the object has another version.
            StorageError: the object is shorter.
        """

    def open_file(self, path: str, size: int, version: str | None = None) -> "RangedFile":
        """Open an object of ``size`` bytes as a file that reads ranges; the first request is made by the first read."""
        return RangedFile(self, path, size, version)

    @abc.abstractmethod
    def read_with_version(self, path: str) -> tuple[bytes, str]:
        """Return a whole object and the version to pass to `compare_and_set`."""

    @abc.abstractmethod
    def write(self, path: str, data: bytes) -> None:
        """Write an object atomically: readers see the old object or the new one, never a part of one."""

    @abc.abstractmethod
    def write_once(self, path: str, data: bytes) -> None:
        """Write an object where there is none yet.

        Raises:
            AlreadyExistsError: there is an object, which stays as it is.
        """

    @abc.abstractmethod
    def compare_and_set(self, path: str, data: bytes, version: str | None) -> str:
        """Replace the object only if it still has ``version`` (None: only if there is no object yet).

        Returns:
            The new version.

        Raises:
            ConflictError: the object has another version.

        A plain `write` at the same moment may be lost, so write such an object with this method alone.
        """

    @abc.abstractmethod
    def upload(self, source: Path, path: str) -> None:
        """Write a file as an object atomically, without holding it in memory."""

    @abc.abstractmethod
    def download(self, path: str, target: Path) -> None:
        """Copy an object to a file that appears only when it is complete; create its folder if that is missing."""

    @abc.abstractmethod
    def list(self, prefix: str = "") -> list[ObjectInfo]:
        """List all objects below a folder, sorted by path; the list is empty if there are none."""

    @abc.abstractmethod
    def info(self, path: str) -> ObjectInfo:
        """Return the size and version of an object.

        Raises:
            NotFoundError: there is no such object.
        """

    def exists(self, path: str) -> bool:
        """Tell whether there is such an object."""
        try:
            self.info(path)
        except NotFoundError:
            return False
        return True

    @abc.abstractmethod
    def delete(self, path: str) -> None:
        """Remove an object; do nothing if there is none."""

    @abc.abstractmethod
    def delete_tree(self, prefix: str) -> None:
        """Remove all objects below a folder."""


class RangedFile(io.RawIOBase):
    """A file that reads an object with `Store.read_range` and holds one block at a time; for one thread.

    Reads from the beginning on fetch whole blocks ahead. After a seek, a read fetches what it needs, and twice as much
    with each block that continues the one before, so that a Parquet file's columns cost little more than their size.

    Raises, when read:
        NotFoundError: there is no such object.
        ChangedError: it has another version.
        StorageError: the object is shorter than ``size``.
    """

    def __init__(self, store: Store, path: str, size: int, version: str | None = None) -> None:
        super().__init__()
        self._store, self._path, self._size, self._version = store, path, size, version
        self._position = 0
        self._block_start, self._block = 0, b""
        self._ahead = BLOCK_BYTES

    @property
    def name(self) -> str:
        """The location of the object, for messages."""
        return f"{self._store.describe()}/{self._path}"

    def readable(self) -> bool:
        """Return True, because the file can be read."""
        self._checkClosed()
        return True

    def seekable(self) -> bool:
        """Return True, because the position can be moved."""
        self._checkClosed()
        return True

    def tell(self) -> int:
        """Return the current position in bytes."""
        self._checkClosed()
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move to a position; it may lie beyond the end, where a read returns nothing.

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
        """Fill the buffer; the number of bytes is smaller only at the end."""
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
        """Read everything from the position to the end."""
        return self.read(max(0, self._size - self.tell())) or b""

    def close(self) -> None:
        """Close the file and free its block."""
        self._block = b""
        super().close()

    def _here(self, wanted: int) -> memoryview:
        """Return at least one byte and at most ``wanted`` bytes from the position."""
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
        self._block = b""  # freed first, so that no two blocks are in memory
        self._block_start = self._position
        self._block = self._store.read_range(self._path, self._position, length, version=self._version)


def checked_path(path: str) -> str:
    """Return a relative path if it stays inside its store.

    Raises:
        ConfigError: the path is empty, absolute, or has empty, ``.`` or ``..`` parts.
    """
    if not path or any(part in ("", ".", "..") for part in path.split("/")) or "\\" in path or "\0" in path:
        raise ConfigError(f"path {path!r}: give a relative path with '/' between its parts, without '.' or '..'")
    return path


def open_source(source: Path) -> BinaryIO:
    """Open a local file for an upload.

    Raises:
        NotFoundError: there is no such file.
        StorageError: the file cannot be read.
    """
    try:
        return source.open("rb")
    except FileNotFoundError:
        raise NotFoundError(f"cannot upload {source}: there is no such file") from None
    except OSError as error:
        raise StorageError(f"cannot upload {source}: {error.strerror or error}") from None


def changed(name: str) -> ChangedError:
    """Return the error for an object that no longer has the requested version."""
    return ChangedError(
        f"{name} changed since it was indexed: put the old object back, or index the data set again under a new name"
    )


def missing_bucket(what: str, where: str, bucket: str) -> NotFoundError:
    """Return the error for a bucket that does not exist."""
    return NotFoundError(f"{what}: there is no bucket {bucket!r} at {where}: create it, or check the name")


def short_read(name: str, offset: int, length: int, came: int) -> StorageError:
    """Return the error for a range that lies beyond an object's end."""
    return StorageError(
        f"cannot read {length} bytes at offset {offset} of {name}: received {came}; the object is shorter than "
        "expected, or the range is wrong"
    )
