"""What every store can do, and the file that reads an object by ranges."""

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
"""The most that one request asks for: enough to hide a request's latency, little enough for many open files."""
SMALLEST_BYTES = 64 * 2**10
"""The least that one request asks for: fewer bytes take as long."""


@dataclass(frozen=True)
class ObjectInfo:
    """An object of a store."""

    path: str
    """Relative to the store, with ``/`` between parts."""
    size: int
    """Bytes."""
    version: str
    """Changes when the object does: the ETag on S3, size and modification time elsewhere."""


class Store(abc.ABC):
    """Objects under one URI. Immutable and small: clients are made where they are used, so that it travels by pickle.

    Paths are relative, with ``/`` between parts; what would leave the store is refused with `ConfigError`.
    """

    @property
    @abc.abstractmethod
    def uri(self) -> str:
        """Canonical and complete: `open_store` of it gives an equal store, on any machine."""

    @abc.abstractmethod
    def describe(self) -> str:
        """For people: a folder's path, ``s3://bucket/prefix`` or ``gs://bucket/prefix``."""

    @abc.abstractmethod
    def __truediv__(self, sub: str) -> Self:
        """The store of a folder below."""

    @abc.abstractmethod
    def arrow(self) -> "tuple[FileSystem, str]":
        """A pyarrow filesystem and this store's path in it."""

    @abc.abstractmethod
    def read(self, path: str, *, version: str | None = None) -> bytes:
        """A whole object; with ``version`` (as `list` and `info` give it) only if it is still that one.

        Raises:
            NotFoundError: there is none.
            ChangedError: it has another version.
        """

    def read_text(self, path: str) -> str:
        """A whole object as UTF-8.

        Raises:
            NotFoundError: there is none.
            StorageError: it is not UTF-8.
        """
        try:
            return self.read(path).decode("utf-8")
        except UnicodeDecodeError as error:
            raise StorageError(f"{self.describe()}/{path} is not UTF-8 text: {error.reason} at {error.start}") from None

    @abc.abstractmethod
    def read_range(self, path: str, offset: int, length: int, *, version: str | None = None) -> bytes:
        """Exactly ``length`` bytes from ``offset``; with ``version`` only if the object is still that one.

        Raises:
            NotFoundError: there is no such object.
            ChangedError: it has another version.
            StorageError: it is shorter.
        """

    def open_file(self, path: str, size: int, version: str | None = None) -> "RangedFile":
        """An object of ``size`` bytes as a file, read by ranges; the store is not asked before the first read."""
        return RangedFile(self, path, size, version)

    @abc.abstractmethod
    def read_with_version(self, path: str) -> tuple[bytes, str]:
        """A whole object and the version to hand to `compare_and_set`."""

    @abc.abstractmethod
    def write(self, path: str, data: bytes) -> None:
        """Publish atomically: readers see the old object or the new one, never a part."""

    @abc.abstractmethod
    def write_once(self, path: str, data: bytes) -> None:
        """Publish where nothing is yet.

        Raises:
            AlreadyExistsError: there is an object; it stays as it is.
        """

    @abc.abstractmethod
    def compare_and_set(self, path: str, data: bytes, version: str | None) -> str:
        """Replace the object only if it still has ``version`` (None: only if there is none).

        Returns:
            The new version.

        Raises:
            ConflictError: it has another.

        A plain `write` at the same moment may be lost: write such an object by this method alone.
        """

    @abc.abstractmethod
    def upload(self, source: Path, path: str) -> None:
        """Publish a file atomically, without holding it in memory."""

    @abc.abstractmethod
    def download(self, path: str, target: Path) -> None:
        """Copy an object into a file that appears only when it is whole; its folder is made where it is missing."""

    @abc.abstractmethod
    def list(self, prefix: str = "") -> list[ObjectInfo]:
        """All objects below a folder, sorted by path; empty where there is nothing."""

    @abc.abstractmethod
    def info(self, path: str) -> ObjectInfo:
        """Size and version of an object.

        Raises:
            NotFoundError: there is none.
        """

    def exists(self, path: str) -> bool:
        """Whether there is such an object."""
        try:
            self.info(path)
        except NotFoundError:
            return False
        return True

    @abc.abstractmethod
    def delete(self, path: str) -> None:
        """Remove an object; nothing happens where there is none."""

    @abc.abstractmethod
    def delete_tree(self, prefix: str) -> None:
        """Remove all objects below a folder."""


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

    def __init__(self, store: Store, path: str, size: int, version: str | None = None) -> None:
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


def checked_path(path: str) -> str:
    """A relative path that stays inside its store.

    Raises:
        ConfigError: it is empty, absolute, or has empty, ``.`` or ``..`` parts.
    """
    if not path or any(part in ("", ".", "..") for part in path.split("/")) or "\\" in path or "\0" in path:
        raise ConfigError(f"path {path!r}: give a relative path with '/' between its parts, without '.' or '..'")
    return path


def open_source(source: Path) -> BinaryIO:
    """A local file to upload.

    Raises:
        NotFoundError: there is none.
        StorageError: it cannot be read.
    """
    try:
        return source.open("rb")
    except FileNotFoundError:
        raise NotFoundError(f"cannot upload {source}: there is no such file") from None
    except OSError as error:
        raise StorageError(f"cannot upload {source}: {error.strerror or error}") from None


def changed(name: str) -> ChangedError:
    """For an object that is not the one any more whose version was asked for."""
    return ChangedError(
        f"{name} changed since it was indexed: put the old object back, or index the data set again under a new name"
    )


def missing_bucket(what: str, where: str, bucket: str) -> NotFoundError:
    """For a bucket that is not there."""
    return NotFoundError(f"{what}: there is no bucket {bucket!r} at {where}: create it, or check the name")


def short_read(name: str, offset: int, length: int, came: int) -> StorageError:
    """For a range that an object cannot give."""
    return StorageError(
        f"cannot read {length} bytes at offset {offset} of {name}: {came} came; the object is shorter than expected, "
        "or the range is wrong"
    )
