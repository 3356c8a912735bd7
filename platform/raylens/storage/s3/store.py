"""An S3 bucket as an object store: boto3 reads and writes; pyarrow's filesystem is for others that want one.

A ranged read is one GET. pyarrow would ask for the object's size first, which doubles the time of a small read.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raylens.errors import AlreadyExistsError, ConflictError, NotFoundError, StorageError
from raylens.storage.base import ObjectInfo, changed, open_source, short_read
from raylens.storage.s3.reads import Reading, patiently
from raylens.storage.s3_place import S3Place
from raylens.storage.s3_requests import put_object
from raylens.storage.transfer import download_parts

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import ObjectTypeDef

__all__ = ["S3Store"]

DELETE_BATCH = 1000  # what one DeleteObjects request takes


@dataclass(frozen=True)
class S3Store(S3Place):
    """Objects under a prefix of a bucket."""

    def read(self, path: str, *, version: str | None = None) -> bytes:
        """See `Store.read`; one request, where none fails."""
        return self._get(path, version=version)[0]

    def read_range(self, path: str, offset: int, length: int, *, version: str | None = None) -> bytes:
        """See `Store.read_range`; one request, where none fails, with ``If-Match`` for the version."""
        if offset < 0 or length < 0:
            raise short_read(self._name(path), offset, length, 0)
        if length == 0:  # HTTP has no empty ranges
            if version not in (None, self.info(path).version):
                raise changed(self._name(path))
            return b""
        data, _ = self._get(path, (offset, length), version)
        if len(data) != length:
            raise short_read(self._name(path), offset, length, len(data))
        return data

    def read_with_version(self, path: str) -> tuple[bytes, str]:
        """The version is the ETag."""
        return self._get(path)

    def _get(self, path: str, span: tuple[int, int] | None = None, version: str | None = None) -> tuple[bytes, str]:
        with self._explained("read", path):
            return Reading(self._reader(), self.bucket, self._key(path), span, version).fetch(self._name(path))

    def write(self, path: str, data: bytes) -> None:
        """One PUT, which S3 makes visible as a whole."""
        self._put(path, data)

    def write_once(self, path: str, data: bytes) -> None:
        """See `Store.write_once`; a PUT with ``If-None-Match: *``."""
        self._put(path, data, IfNoneMatch="*")

    def compare_and_set(self, path: str, data: bytes, version: str | None) -> str:
        """See `Store.compare_and_set`; a PUT with ``If-Match``."""
        condition = {"IfNoneMatch": "*"} if version is None else {"IfMatch": version}
        try:
            return self._put(path, data, **condition)
        except AlreadyExistsError:
            pass
        except NotFoundError:  # the bucket, or the object that was to be replaced
            self._require_bucket(f"cannot write {self._name(path)}")
        raise ConflictError(f"{self._name(path)} was changed by somebody else: read it again, then retry")

    def _put(self, path: str, data: bytes, **condition: Any) -> str:
        with self._explained("write", path):
            return put_object(self._client(), Bucket=self.bucket, Key=self._key(path), Body=data, **condition)

    def upload(self, source: Path, path: str) -> None:
        """In parts, which S3 makes visible together."""
        with open_source(source) as stream, self._explained("write", path):
            self._client().upload_fileobj(stream, self.bucket, self._key(path))

    def download(self, path: str, target: Path) -> None:
        """See `Store.download`; several ranges at a time."""
        download_parts(self, path, target)

    def list(self, prefix: str = "") -> list[ObjectInfo]:
        """See `Store.list`.

        Raises:
            NotFoundError: there is no such bucket.
        """
        cut = len(f"{self.prefix}/") if self.prefix else 0
        found = [
            ObjectInfo(item["Key"][cut:], item["Size"], item["ETag"].strip('"'))
            for item in self._below(self._key(prefix) if prefix else self.prefix)
            if not item["Key"].endswith("/")  # a folder's marker, made by some tools
        ]
        return sorted(found, key=lambda info: info.path)

    def _below(self, folder: str) -> Iterator["ObjectTypeDef"]:
        with self._explained("list", ""):
            client = self._reader()
            request: dict[str, Any] = {"Bucket": self.bucket, "Prefix": f"{folder}/" if folder else ""}
            while True:
                page = patiently(lambda: client.list_objects_v2(**request))
                yield from page.get("Contents", [])
                if not page.get("IsTruncated"):
                    return
                request["ContinuationToken"] = page["NextContinuationToken"]

    def info(self, path: str) -> ObjectInfo:
        """See `Store.info`."""
        with self._explained("read", path):
            client = self._reader()
            answer = patiently(lambda: client.head_object(Bucket=self.bucket, Key=self._key(path)))
        return ObjectInfo(path, answer["ContentLength"], answer["ETag"].strip('"'))

    def delete(self, path: str) -> None:
        """See `Store.delete`."""
        with self._explained("delete", path):
            self._client().delete_object(Bucket=self.bucket, Key=self._key(path))

    def delete_tree(self, prefix: str) -> None:
        """See `Store.delete_tree`; markers of folders go too."""
        keys = [item["Key"] for item in self._below(self._key(prefix))]
        for at in range(0, len(keys), DELETE_BATCH):
            batch: Any = {"Objects": [{"Key": key} for key in keys[at : at + DELETE_BATCH]], "Quiet": True}
            with self._explained("delete", prefix):
                answer = self._client().delete_objects(Bucket=self.bucket, Delete=batch)
            for error in answer.get("Errors", []):
                raise StorageError(f"cannot delete s3://{self.bucket}/{error.get('Key')}: {error.get('Message')}")
