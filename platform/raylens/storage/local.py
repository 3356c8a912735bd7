"""A local folder as an object store, and files that appear only when they are complete."""

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self

from raylens.errors import AlreadyExistsError, ChangedError, ConfigError, ConflictError, NotFoundError, StorageError
from raylens.storage.base import ObjectInfo, Store, changed, checked_path, open_source, short_read

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

__all__ = ["LocalStore", "download_parts"]

HIDDEN = ".raylens-"
"""The prefix of the names of temporary and lock files, which are not objects."""
PART_BYTES, THREADS = 8 * 2**20, 8


@dataclass(frozen=True)
class LocalStore(Store):
    """A store whose objects are files. A new file is written beside its target, forced to disk, and moved to it."""

    root: str

    @property
    def uri(self) -> str:
        """The absolute path, which serves as a URI."""
        return self.root

    def describe(self) -> str:
        """Return the path for messages, relative to the current folder if it lies below."""
        with contextlib.suppress(ValueError, FileNotFoundError):  # it lies elsewhere, or the current folder was deleted
            return str(Path(self.root).relative_to(Path.cwd()))
        return self.root

    def __truediv__(self, sub: str) -> Self:
        return type(self)(str(Path(self.root) / checked_path(sub)))

    def arrow(self) -> "tuple[FileSystem, str]":
        """Return pyarrow's local filesystem and the folder's path."""
        from pyarrow.fs import LocalFileSystem

        return LocalFileSystem(), self.root

    def read(self, path: str, *, version: str | None = None) -> bytes:
        """Implement `Store.read` on a local file."""
        target = self._at(path)
        with _explained("read", target), target.open("rb") as stream:
            data = stream.read()
            _require_version(stream, version)
        return data

    def read_range(self, path: str, offset: int, length: int, *, version: str | None = None) -> bytes:
        """Implement `Store.read_range` on a local file."""
        target = self._at(path)
        if offset < 0 or length < 0:
            raise short_read(str(target), offset, length, 0)
        with _explained("read", target), target.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            stream.seek(min(offset, size))
            data = stream.read(min(length, max(size - offset, 0)))  # a wrong length must not be allocated
            _require_version(stream, version)
        if len(data) != length:
            raise short_read(str(target), offset, length, len(data))
        return data

    def read_with_version(self, path: str) -> tuple[bytes, str]:
        """Implement `Store.read_with_version`: the version is a hash, because two writes may have equal times."""
        data = self.read(path)
        return data, _hash(data)

    def write(self, path: str, data: bytes) -> None:
        """Implement `Store.write` by moving a finished file."""
        with _explained("write", self._at(path)), _beside(self._at(path)) as new:
            new.write_bytes(data)
            _publish(new, self._at(path))

    def write_once(self, path: str, data: bytes) -> None:
        """Implement `Store.write_once` by a hard link."""
        target = self._at(path)
        with _explained("write", target), _beside(target) as new:
            new.write_bytes(data)
            _sync(new)
            try:
                target.hardlink_to(new)  # atomic, and fails if the target exists
            except FileExistsError:
                raise AlreadyExistsError(f"{target} exists already") from None
            _sync(target.parent)

    def compare_and_set(self, path: str, data: bytes, version: str | None) -> str:
        """Implement `Store.compare_and_set`: writers take turns by a lock file."""
        target = self._at(path)
        if version is None:
            return self._create(path, data)
        with _explained("write", target):
            target.parent.mkdir(parents=True, exist_ok=True)
            with (target.parent / f"{HIDDEN}lock-{target.name}").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                current = _hash(target.read_bytes()) if target.exists() else None
                if current != version:
                    raise _conflict(target)
                self.write(path, data)
        return _hash(data)

    def _create(self, path: str, data: bytes) -> str:
        try:
            self.write_once(path, data)
        except AlreadyExistsError:
            raise _conflict(self._at(path)) from None
        return _hash(data)

    def upload(self, source: Path, path: str) -> None:
        """Implement `Store.upload` by copying the file."""
        with open_source(source) as stream, _explained("write", self._at(path)), _beside(self._at(path)) as new:
            with new.open("wb") as sink:
                shutil.copyfileobj(stream, sink)
            _publish(new, self._at(path))

    def download(self, path: str, target: Path) -> None:
        """Implement `Store.download` by copying the file."""
        with _explained("read", self._at(path)):
            stream = self._at(path).open("rb")
        with stream, _explained("write", target), _beside(target) as new:
            with new.open("wb") as sink:
                shutil.copyfileobj(stream, sink)
            _publish(new, target)

    def list(self, prefix: str = "") -> list[ObjectInfo]:
        """Implement `Store.list`: links to folders are followed."""
        folder = self._at(prefix) if prefix else Path(self.root)
        with _explained("list", folder):
            return sorted(self._objects(folder), key=lambda info: info.path)

    def _objects(self, folder: Path) -> Iterator[ObjectInfo]:
        for file in _walk(self.root, folder):
            with contextlib.suppress(NotFoundError):  # deleted in the meantime, or a broken link
                yield _file_info(file, str(file.relative_to(self.root)))

    def info(self, path: str) -> ObjectInfo:
        """Implement `Store.info` by the file's status."""
        return _file_info(self._at(path), path)

    def delete(self, path: str) -> None:
        """Implement `Store.delete` for a local file."""
        with _explained("delete", self._at(path)):
            self._at(path).unlink(missing_ok=True)

    def delete_tree(self, prefix: str) -> None:
        """Implement `Store.delete_tree` for a local folder."""
        folder = self._at(prefix)
        with _explained("delete", folder):
            while folder.is_dir():
                with contextlib.suppress(FileNotFoundError):  # another process deletes it too
                    shutil.rmtree(folder)

    def _at(self, path: str) -> Path:
        if any(part.startswith(HIDDEN) for part in checked_path(path).split("/")):
            raise ConfigError(f"path {path!r}: names that begin with {HIDDEN!r} are reserved for unfinished writes")
        return Path(self.root) / path


def _conflict(target: Path) -> ConflictError:
    return ConflictError(f"{target} was changed by another process: read it again, then retry")


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def download_parts(store: Store, path: str, target: Path) -> None:
    """Copy an object to a file that appears only when it is complete.

    Raises:
        NotFoundError: there is no such object.
        ChangedError: the object changed in the meantime.
        StorageError: the file cannot be written.
    """
    info = store.info(path)
    try:
        with _beside(target) as new:
            with new.open("wb") as sink:
                _fill(sink, store, info)
            _publish(new, target)
    except ChangedError:
        raise ChangedError(f"{store.describe()}/{path} changed while it was downloaded: start again") from None
    except OSError as error:
        raise StorageError(f"cannot write {target}: {error.strerror or error}") from None


def _fill(sink: BinaryIO, store: Store, info: ObjectInfo) -> None:
    def part(offset: int) -> None:
        length = min(PART_BYTES, info.size - offset)
        left = memoryview(store.read_range(info.path, offset, length, version=info.version))
        while left:  # a disk that runs full takes a part of it first
            written = os.pwrite(sink.fileno(), left, offset)
            left, offset = left[written:], offset + written

    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(part, range(0, info.size, PART_BYTES)):
            pass


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """Yield a hidden name in the folder of a file; delete such a file at the end."""
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_name(f"{HIDDEN}{uuid.uuid4().hex}")
    try:
        yield new
    finally:
        new.unlink(missing_ok=True)


def _publish(new: Path, target: Path) -> None:
    """Move a finished file to its target, so that it survives a loss of power from then on."""
    _sync(new)
    new.replace(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    """Force a file's content, or a folder's entries, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _explained(verb: str, path: Path) -> Iterator[None]:
    """Turn the operating system's errors into raylens' own, within this context."""
    try:
        yield
    except OSError as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError)
        # A name that is too long and a link to itself cannot be objects.
        absent = verb != "write" and (missing or error.errno in (errno.ENAMETOOLONG, errno.ELOOP))
        kind = NotFoundError if absent else StorageError
        raise kind(f"cannot {verb} {path}: {error.strerror or error}") from None


def _file_info(file: Path, path: str) -> ObjectInfo:
    """Return the size and version of a file whose path in its store is ``path``.

    Raises:
        NotFoundError: there is no such file, or it is not a regular file.
    """
    with _explained("read", file):
        status = file.stat()
    if not stat.S_ISREG(status.st_mode):
        raise NotFoundError(f"{file} is not a file")
    return ObjectInfo(path, status.st_size, _version(status))


def _require_version(stream: BinaryIO, version: str | None) -> None:
    """Compare the version of the open file after reading, so that neither a rename nor a write goes unnoticed.

    Raises:
        ChangedError: the file has another version than ``version``, which is not None.
    """
    if version is not None and _version(os.fstat(stream.fileno())) != version:
        raise changed(str(stream.name))


def _walk(root: str, folder: Path) -> Iterator[Path]:
    """Yield all files below a folder of a store, through links, except links that lead back to a folder above.

    Args:
        root: the store's own folder.
        folder: the store's folder, or a folder below it.

    Raises:
        OSError: a folder cannot be listed.
    """
    for parent, folders, names in os.walk(folder, onerror=_missing_is_empty, followlinks=True):
        above = _above(root, Path(parent)) if any(Path(parent, name).is_symlink() for name in folders) else []
        folders[:] = [
            name for name in folders if not name.startswith(HIDDEN) and not _leads_back(Path(parent, name), above)
        ]
        yield from (Path(parent, name) for name in names if not name.startswith(HIDDEN))


def _above(root: str, folder: Path) -> list[Path]:
    """Return the real paths of a folder and of its parents, up to the store's own folder."""
    return [Path(os.path.realpath(path)) for path in (folder, *folder.parents) if path.is_relative_to(root)]


def _leads_back(folder: Path, above: list[Path]) -> bool:
    if not above or not folder.is_symlink():
        return False
    target = Path(os.path.realpath(folder))
    return any(path.is_relative_to(target) for path in above)


def _missing_is_empty(error: OSError) -> None:
    """Ignore a folder that does not exist; raise other errors of `os.walk`."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError) and error.errno != errno.ELOOP:
        raise error


def _version(status: os.stat_result) -> str:
    return f"{status.st_size}-{status.st_mtime_ns}"
