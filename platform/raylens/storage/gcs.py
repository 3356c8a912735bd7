"""A bucket of Google Cloud Storage, to be read: pyarrow offers no conditional write, which runs and registries need."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self
from urllib.parse import quote, urlencode

from raylens.errors import NotFoundError, StorageError
from raylens.storage.base import ObjectInfo, Store, changed, checked_path, short_read
from raylens.storage.gcs_client import failure, gcs_filesystem, missing_bucket
from raylens.storage.transfer import download_parts

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem

__all__ = ["GcsStore"]


@dataclass(frozen=True)
class GcsStore(Store):
    """Objects under a prefix of a bucket; whatever would write raises `StorageError`."""

    bucket: str
    prefix: str
    endpoint: str
    """Empty for Google's own."""
    anonymous: bool = False

    @property
    def uri(self) -> str:
        """With the endpoint (empty: Google's own)."""
        options = {"endpoint_override": self.endpoint}
        if self.anonymous:
            options["anonymous"] = "true"
        return f"gs://{self.bucket}/{quote(self.prefix)}".rstrip("/") + f"?{urlencode(options, safe=':/')}"

    def describe(self) -> str:
        """``gs://bucket/prefix``."""
        return f"gs://{self.bucket}/{self.prefix}".rstrip("/")

    def __truediv__(self, sub: str) -> Self:
        return replace(self, prefix=f"{self.prefix}/{checked_path(sub)}".lstrip("/"))

    def arrow(self) -> "tuple[FileSystem, str]":
        """pyarrow's filesystem with this store's endpoint."""
        return gcs_filesystem(self.endpoint, self.anonymous), f"{self.bucket}/{self.prefix}".rstrip("/")

    def read(self, path: str, *, version: str | None = None) -> bytes:
        """See `Store.read`."""
        with self._opened(path, version) as stream:
            return bytes(stream.read())

    def read_range(self, path: str, offset: int, length: int, *, version: str | None = None) -> bytes:
        """See `Store.read_range`."""
        if offset < 0 or length < 0:
            raise short_read(self._name(path), offset, length, 0)
        with self._opened(path, version) as stream:
            size = stream.size()
            left = min(length, max(size - offset, 0))  # pyarrow allocates before it reads
            data = bytes(stream.read_at(left, offset)) if left else b""
        if len(data) != length:
            raise short_read(self._name(path), offset, length, len(data))
        return data

    def read_with_version(self, path: str) -> tuple[bytes, str]:
        """The version is that of `info`."""
        version = self.info(path).version
        return self.read(path, version=version), version

    @contextmanager
    def _opened(self, path: str, version: str | None) -> Iterator[Any]:
        """A stream that stays with the object that it met, whatever is written later."""
        with self._explained("read", path):
            filesystem, key = self._key(path)
            with filesystem.open_input_file(key) as stream:
                # Asked after opening: what was indexed, and is there now, was there in between as well.
                if version is not None and self.info(path).version != version:
                    raise changed(self._name(path))
                yield stream

    def download(self, path: str, target: Path) -> None:
        """See `Store.download`; several ranges at a time."""
        download_parts(self, path, target)

    def list(self, prefix: str = "") -> list[ObjectInfo]:
        """See `Store.list`.

        Raises:
            NotFoundError: there is no such bucket.
        """
        from pyarrow.fs import FileSelector, FileType

        with self._explained("list", prefix):
            filesystem, folder = self._key(prefix) if prefix else self.arrow()
            found = filesystem.get_file_info(FileSelector(folder, recursive=True, allow_not_found=True))
            if not found:
                self._require_bucket(f"cannot list {self.describe()}")
        cut = len(f"{self.arrow()[1]}/")
        return sorted((_info(one, one.path[cut:]) for one in found if one.type == FileType.File), key=_by_path)

    def info(self, path: str) -> ObjectInfo:
        """See `Store.info`."""
        from pyarrow.fs import FileType

        with self._explained("read", path):
            filesystem, key = self._key(path)
            found = filesystem.get_file_info(key)
            if found.type != FileType.File:
                raise FileNotFoundError(key)
        return _info(found, path)

    def write(self, path: str, data: bytes) -> NoReturn:  # noqa: ARG002
        """Refused."""
        self._refuse(path)

    def write_once(self, path: str, data: bytes) -> NoReturn:  # noqa: ARG002
        """Refused."""
        self._refuse(path)

    def compare_and_set(self, path: str, data: bytes, version: str | None) -> NoReturn:  # noqa: ARG002
        """Refused."""
        self._refuse(path)

    def upload(self, source: Path, path: str) -> NoReturn:  # noqa: ARG002
        """Refused."""
        self._refuse(path)

    def delete(self, path: str) -> NoReturn:
        """Refused."""
        self._refuse(path)

    def delete_tree(self, prefix: str) -> NoReturn:
        """Refused."""
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
        """pyarrow's complaints in our words."""
        from pyarrow import ArrowException

        what = f"cannot {verb} {self._name(path)}"
        try:
            yield
        except (ArrowException, OSError) as error:
            told = failure(what, self._where(), self.bucket, error)
            if isinstance(told, NotFoundError):
                self._require_bucket(what)
            raise told from None

    def _require_bucket(self, what: str) -> None:
        """Raise if the bucket is certainly missing; a policy may forbid asking."""
        from pyarrow import ArrowException
        from pyarrow.fs import FileType

        try:
            found = gcs_filesystem(self.endpoint, self.anonymous).get_file_info(self.bucket)
        except (ArrowException, OSError):
            return
        if found.type == FileType.NotFound:
            raise missing_bucket(what, self._where(), self.bucket)


def _info(found: "FileInfo", path: str) -> ObjectInfo:
    return ObjectInfo(path, found.size, f"{found.size}-{found.mtime_ns}")


def _by_path(info: ObjectInfo) -> str:
    return info.path
