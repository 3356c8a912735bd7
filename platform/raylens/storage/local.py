"""A folder of this machine as an object store."""

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from raylens.errors import AlreadyExistsError, ConfigError, ConflictError, NotFoundError
from raylens.storage.atomic import HIDDEN, beside, publish, sync
from raylens.storage.base import ObjectInfo, Store, checked_path, open_source, short_read
from raylens.storage.local_files import explained, file_info, require_version, walk

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

__all__ = ["LocalStore"]


@dataclass(frozen=True)
class LocalStore(Store):
    """Objects are files. A new one is written beside its place, forced to disk, and moved there."""

    root: str

    @property
    def uri(self) -> str:
        """The absolute path: a URI of its own kind."""
        return self.root

    def describe(self) -> str:
        """The path, relative to the current folder where that is shorter to read."""
        with contextlib.suppress(ValueError, FileNotFoundError):  # elsewhere, or the current folder is gone
            return str(Path(self.root).relative_to(Path.cwd()))
        return self.root

    def __truediv__(self, sub: str) -> Self:
        return type(self)(str(Path(self.root) / checked_path(sub)))

    def arrow(self) -> "tuple[FileSystem, str]":
        """pyarrow's local filesystem."""
        from pyarrow.fs import LocalFileSystem

        return LocalFileSystem(), self.root

    def read(self, path: str, *, version: str | None = None) -> bytes:
        """See `Store.read`."""
        target = self._at(path)
        with explained("read", target), target.open("rb") as stream:
            data = stream.read()
            require_version(stream, version)
        return data

    def read_range(self, path: str, offset: int, length: int, *, version: str | None = None) -> bytes:
        """See `Store.read_range`."""
        target = self._at(path)
        if offset < 0 or length < 0:
            raise short_read(str(target), offset, length, 0)
        with explained("read", target), target.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            stream.seek(min(offset, size))
            data = stream.read(min(length, max(size - offset, 0)))  # a wrong length must not allocate itself
            require_version(stream, version)
        if len(data) != length:
            raise short_read(str(target), offset, length, len(data))
        return data

    def read_with_version(self, path: str) -> tuple[bytes, str]:
        """The version is a hash of the content: modification times may be equal for two writes."""
        data = self.read(path)
        return data, _hash(data)

    def write(self, path: str, data: bytes) -> None:
        """See `Store.write`."""
        with explained("write", self._at(path)), beside(self._at(path)) as new:
            new.write_bytes(data)
            publish(new, self._at(path))

    def write_once(self, path: str, data: bytes) -> None:
        """See `Store.write_once`."""
        target = self._at(path)
        with explained("write", target), beside(target) as new:
            new.write_bytes(data)
            sync(new)
            try:
                target.hardlink_to(new)  # fails where something is, atomically
            except FileExistsError:
                raise AlreadyExistsError(f"{target} exists already") from None
            sync(target.parent)

    def compare_and_set(self, path: str, data: bytes, version: str | None) -> str:
        """See `Store.compare_and_set`; writers take turns by a lock file."""
        target = self._at(path)
        if version is None:
            return self._create(path, data)
        with explained("write", target):
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
        """See `Store.upload`."""
        with open_source(source) as stream, explained("write", self._at(path)), beside(self._at(path)) as new:
            with new.open("wb") as sink:
                shutil.copyfileobj(stream, sink)
            publish(new, self._at(path))

    def download(self, path: str, target: Path) -> None:
        """See `Store.download`."""
        with explained("read", self._at(path)):
            stream = self._at(path).open("rb")
        with stream, explained("write", target), beside(target) as new:
            with new.open("wb") as sink:
                shutil.copyfileobj(stream, sink)
            publish(new, target)

    def list(self, prefix: str = "") -> list[ObjectInfo]:
        """See `Store.list`; links to folders are followed."""
        folder = self._at(prefix) if prefix else Path(self.root)
        with explained("list", folder):
            return sorted(self._walk(folder), key=lambda info: info.path)

    def _walk(self, folder: Path) -> Iterator[ObjectInfo]:
        for file in walk(self.root, folder, HIDDEN):
            with contextlib.suppress(NotFoundError):  # deleted while we look, or a link to nothing
                yield file_info(file, str(file.relative_to(self.root)))

    def info(self, path: str) -> ObjectInfo:
        """See `Store.info`."""
        return file_info(self._at(path), path)

    def delete(self, path: str) -> None:
        """See `Store.delete`."""
        with explained("delete", self._at(path)):
            self._at(path).unlink(missing_ok=True)

    def delete_tree(self, prefix: str) -> None:
        """See `Store.delete_tree`."""
        folder = self._at(prefix)
        with explained("delete", folder):
            while folder.is_dir():
                with contextlib.suppress(FileNotFoundError):  # somebody else deletes too
                    shutil.rmtree(folder)

    def _at(self, path: str) -> Path:
        if any(part.startswith(HIDDEN) for part in checked_path(path).split("/")):
            raise ConfigError(f"path {path!r}: names that begin with {HIDDEN!r} are kept for unfinished writes")
        return Path(self.root) / path


def _conflict(target: Path) -> ConflictError:
    return ConflictError(f"{target} was changed by somebody else: read it again, then retry")


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
