"""A bucket of Google Cloud Storage, read only: runs and registries need conditional writes, which pyarrow lacks."""

import functools
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self
from urllib.parse import quote, urlencode

from raylens.errors import NotFoundError, StorageError, UnreachableError
from raylens.storage.base import ObjectInfo, Store, changed, checked_path, missing_bucket, short_read
from raylens.storage.local import download_parts

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem, GcsFileSystem

__all__ = ["GcsStore"]

RETRY_SECONDS = 15
"""The time after which Google's library makes no further attempt. Pauses grow from a second: four or five fit in."""
EMULATOR = "CLOUD_STORAGE_EMULATOR_ENDPOINT"
STATUS = re.compile(r"google::cloud::Status\((?P<code>[A-Z_]+): (?P<reason>.*?)(?: error_info=|\)?$)", re.DOTALL)
LOGIN = "set GOOGLE_APPLICATION_CREDENTIALS, or add ?anonymous=true to the URI of a public bucket"


@dataclass(frozen=True)
class GcsStore(Store):
    """A read-only store of the objects under a prefix of a bucket; methods that write raise `StorageError`."""

    bucket: str
    prefix: str
    endpoint: str
    """The endpoint; it is empty for Google's own."""
    anonymous: bool = False

    @property
    def uri(self) -> str:
        """The URI with its endpoint (empty: Google's own)."""
        options = {"endpoint_override": self.endpoint}
        if self.anonymous:
            options["anonymous"] = "true"
        return f"gs://{self.bucket}/{quote(self.prefix)}".rstrip("/") + f"?{urlencode(options, safe=':/')}"

    def describe(self) -> str:
        """Return the location for messages as ``gs://bucket/prefix``."""
        return f"gs://{self.bucket}/{self.prefix}".rstrip("/")

    def __truediv__(self, sub: str) -> Self:
        return replace(self, prefix=f"{self.prefix}/{checked_path(sub)}".lstrip("/"))

    def arrow(self) -> "tuple[FileSystem, str]":
        """Return pyarrow's filesystem with this store's endpoint."""
        return _filesystem(self.endpoint, self.anonymous), f"{self.bucket}/{self.prefix}".rstrip("/")

    def read(self, path: str, *, version: str | None = None) -> bytes:
        """Implement `Store.read` on a stream of pyarrow."""
        with self._opened(path, version) as stream:
            return bytes(stream.read())

    def read_range(self, path: str, offset: int, length: int, *, version: str | None = None) -> bytes:
        """Implement `Store.read_range` on a stream of pyarrow."""
        if offset < 0 or length < 0:
            raise short_read(self._name(path), offset, length, 0)
        with self._opened(path, version) as stream:
            size = stream.size()
            left = min(length, max(size - offset, 0))  # pyarrow allocates the whole length before it reads
            data = bytes(stream.read_at(left, offset)) if left else b""
        if len(data) != length:
            raise short_read(self._name(path), offset, length, len(data))
        return data

    def read_with_version(self, path: str) -> tuple[bytes, str]:
        """Implement `Store.read_with_version`: the version is that of `info`."""
        version = self.info(path).version
        return self.read(path, version=version), version

    @contextmanager
    def _opened(self, path: str, version: str | None) -> Iterator[Any]:
        """Open a stream that keeps reading the object that it opened, whatever is written later."""
        with self._explained("read", path):
            filesystem, key = self._key(path)
            with filesystem.open_input_file(key) as stream:
                # Compared after opening: an object that was indexed and is still there was also there in between.
                if version is not None and self.info(path).version != version:
                    raise changed(self._name(path))
                yield stream

    def download(self, path: str, target: Path) -> None:
        """Implement `Store.download`: read several ranges at a time."""
        download_parts(self, path, target)

    def list(self, prefix: str = "") -> list[ObjectInfo]:
        """Implement `Store.list` for a bucket of Google's.

        Raises:
            NotFoundError: there is no such bucket.
        """
        from pyarrow.fs import FileSelector, FileType

        with self._explained("list", prefix):
            filesystem, folder = self._key(prefix) if prefix else self.arrow()
            files = filesystem.get_file_info(FileSelector(folder, recursive=True, allow_not_found=True))
            if not files:
                self._require_bucket(f"cannot list {self.describe()}")
        cut = len(f"{self.arrow()[1]}/")
        return sorted((_info(file, file.path[cut:]) for file in files if file.type == FileType.File), key=_by_path)

    def info(self, path: str) -> ObjectInfo:
        """Implement `Store.info` with pyarrow's information."""
        from pyarrow.fs import FileType

        with self._explained("read", path):
            filesystem, key = self._key(path)
            file = filesystem.get_file_info(key)
            if file.type != FileType.File:
                raise FileNotFoundError(key)
        return _info(file, path)

    def write(self, path: str, data: bytes) -> NoReturn:  # noqa: ARG002
        """Raise `StorageError`: the store is read only."""
        self._refuse(path)

    def write_once(self, path: str, data: bytes) -> NoReturn:  # noqa: ARG002
        """Raise `StorageError`: the store is read only."""
        self._refuse(path)

    def compare_and_set(self, path: str, data: bytes, version: str | None) -> NoReturn:  # noqa: ARG002
        """Raise `StorageError`: the store is read only."""
        self._refuse(path)

    def upload(self, source: Path, path: str) -> NoReturn:  # noqa: ARG002
        """Raise `StorageError`: the store is read only."""
        self._refuse(path)

    def delete(self, path: str) -> NoReturn:
        """Raise `StorageError`: the store is read only."""
        self._refuse(path)

    def delete_tree(self, prefix: str) -> NoReturn:
        """Raise `StorageError`: the store is read only."""
        self._refuse(prefix)

    def _refuse(self, path: str) -> NoReturn:
        raise StorageError(
            f"cannot change {self._name(path)}: gs:// holds data sets only, to be read; runs, registries and new "
            "shards need s3:// or a folder"
        )

    def _key(self, path: str) -> "tuple[FileSystem, str]":
        filesystem, root = self.arrow()
        return filesystem, f"{root}/{checked_path(path)}"

    def _name(self, path: str) -> str:
        return f"{self.describe()}/{path}" if path else self.describe()

    def _where(self) -> str:
        return self.endpoint or "Google Cloud Storage"

    @contextmanager
    def _explained(self, verb: str, path: str) -> Iterator[None]:
        """Turn pyarrow's errors into raylens' own, within this context."""
        from pyarrow import ArrowException

        what = f"cannot {verb} {self._name(path)}"
        try:
            yield
        except (ArrowException, OSError) as error:
            complaint = _failure(what, self._where(), self.bucket, error)
            if isinstance(complaint, NotFoundError):
                self._require_bucket(what)
            raise complaint from None

    def _require_bucket(self, what: str) -> None:
        """Raise an error if the bucket is certainly missing; a policy may forbid the request."""
        from pyarrow import ArrowException
        from pyarrow.fs import FileType

        try:
            bucket = _filesystem(self.endpoint, self.anonymous).get_file_info(self.bucket)
        except (ArrowException, OSError):
            return
        if bucket.type == FileType.NotFound:
            raise missing_bucket(what, self._where(), self.bucket)


def _info(file: "FileInfo", path: str) -> ObjectInfo:
    return ObjectInfo(path, file.size, f"{file.size}-{file.mtime_ns}")


def _by_path(info: ObjectInfo) -> str:
    return info.path


def _filesystem(endpoint: str, anonymous: bool) -> "GcsFileSystem":
    """Return pyarrow's filesystem, which is made once per process.

    Raises:
        UnreachableError: the environment would redirect it to another endpoint.
    """
    if os.environ.get(EMULATOR, endpoint) != endpoint:
        raise UnreachableError(
            f"{EMULATOR} = {os.environ[EMULATOR]!r} overrules the endpoint {endpoint or 'of Google'!r} of the URI: "
            "unset it, or write it into the URI as ?endpoint_override="
        )
    return _cached_filesystem(os.getpid(), endpoint, anonymous, RETRY_SECONDS)


@functools.lru_cache(maxsize=32)
def _cached_filesystem(_process: int, endpoint: str, anonymous: bool, seconds: int) -> "GcsFileSystem":
    from pyarrow.fs import GcsFileSystem

    scheme, _, host = endpoint.partition("://")
    place = {"scheme": scheme, "endpoint_override": host} if endpoint else {}
    return GcsFileSystem(anonymous=anonymous, retry_time_limit=timedelta(seconds=seconds), **place)


def _failure(what: str, where: str, bucket: str, error: Exception) -> StorageError:
    """Return the error for what pyarrow raised, in one line."""
    status = STATUS.search(str(error))
    code, reason = (status["code"], status["reason"]) if status else ("", str(error))
    reason = " ".join(reason.rpartition("last message of ")[2].split())
    if isinstance(error, FileNotFoundError) or code == "NOT_FOUND":
        return NotFoundError(f"{what}: there is no such object")
    if isinstance(error, PermissionError) or code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return UnreachableError(f"{what}: {where} refuses access ({code}): check its permissions; {LOGIN}")
    if "access token" in reason:  # the only failure without an HTTP status
        return UnreachableError(f"{what}: no Google credentials ({_last_sentence(reason)}): {LOGIN}")
    if code in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL"):
        return UnreachableError(
            f"{what}: {where} does not answer for bucket {bucket!r} ({reason}): check the endpoint and the network"
        )
    return StorageError(f"{what} at {where}: {code} {reason}")


def _last_sentence(reason: str) -> str:
    return reason.rpartition("error message was: ")[2]
