"""An S3 bucket as an object store: boto3 reads and writes; pyarrow's filesystem is for libraries that need one.

A ranged read is one GET. pyarrow would request the object's size first, which doubles the time of a small read.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlencode

from raylens.errors import AlreadyExistsError, ConflictError, NotFoundError, StorageError
from raylens.storage.base import ObjectInfo, Store, changed, checked_path, missing_bucket, open_source, short_read
from raylens.storage.local import download_parts
from raylens.storage.s3.clients import ATTEMPTS, s3_client, s3_filesystem, s3_reader
from raylens.storage.s3.errors import code_of, failure, refusal
from raylens.storage.s3.reads import Reading, patiently

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectTypeDef
    from pyarrow.fs import FileSystem

__all__ = ["S3Store"]

DELETE_BATCH = 1000  # the most that one DeleteObjects request takes
PAUSE_SECONDS = 0.1
"""The pause before the second attempt; it doubles before each further one."""


@dataclass(frozen=True)
class S3Store(Store):
    """The objects under a prefix of an S3 bucket."""

    bucket: str
    prefix: str
    endpoint: str
    """The endpoint; it is empty for Amazon's own."""
    region: str
    anonymous: bool = False

    @property
    def uri(self) -> str:
        """The URI with endpoint (empty: Amazon's own) and region, so that every machine reaches the same bucket."""
        options = {"region": self.region, "endpoint_override": self.endpoint}
        if self.anonymous:
            options["anonymous"] = "true"
        return f"s3://{self.bucket}/{quote(self.prefix)}".rstrip("/") + f"?{urlencode(options, safe=':/')}"

    def describe(self) -> str:
        """Return the location for messages as ``s3://bucket/prefix``."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def __truediv__(self, sub: str) -> Self:
        return replace(self, prefix=self._key(sub))

    def arrow(self) -> "tuple[FileSystem, str]":
        """Return pyarrow's S3 filesystem with this store's endpoint, region and credentials."""
        with self._explained("open", ""):
            filesystem = s3_filesystem(self.endpoint, self.region, self.anonymous)
        return filesystem, f"{self.bucket}/{self.prefix}".rstrip("/")

    def read(self, path: str, *, version: str | None = None) -> bytes:
        """Implement `Store.read`: one request, unless it fails."""
        return self._get(path, version=version)[0]

    def read_range(self, path: str, offset: int, length: int, *, version: str | None = None) -> bytes:
        """Implement `Store.read_range`: one request, unless it fails, with ``If-Match`` for the version."""
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
        """Implement `Store.read_with_version`: the version is the ETag."""
        return self._get(path)

    def _get(self, path: str, span: tuple[int, int] | None = None, version: str | None = None) -> tuple[bytes, str]:
        with self._explained("read", path):
            return Reading(self._reader(), self.bucket, self._key(path), span, version).fetch(self._name(path))

    def write(self, path: str, data: bytes) -> None:
        """Implement `Store.write`: one PUT, which S3 makes visible as a whole."""
        self._put(path, data)

    def write_once(self, path: str, data: bytes) -> None:
        """Implement `Store.write_once`: a PUT with ``If-None-Match: *``."""
        self._put(path, data, IfNoneMatch="*")

    def compare_and_set(self, path: str, data: bytes, version: str | None) -> str:
        """Implement `Store.compare_and_set`: a PUT with ``If-Match``."""
        condition = {"IfNoneMatch": "*"} if version is None else {"IfMatch": version}
        try:
            return self._put(path, data, **condition)
        except AlreadyExistsError:
            pass
        except NotFoundError:  # either the bucket or the object to replace is missing
            self._require_bucket(f"cannot write {self._name(path)}")
        raise ConflictError(f"{self._name(path)} was changed by another process: read it again, then retry")

    def _put(self, path: str, data: bytes, **condition: Any) -> str:
        with self._explained("write", path):
            return _put_object(self._client(), Bucket=self.bucket, Key=self._key(path), Body=data, **condition)

    def upload(self, source: Path, path: str) -> None:
        """Implement `Store.upload`: in parts, which S3 makes visible together."""
        with open_source(source) as stream, self._explained("write", path):
            self._client().upload_fileobj(stream, self.bucket, self._key(path))

    def download(self, path: str, target: Path) -> None:
        """Implement `Store.download`: read several ranges at a time."""
        download_parts(self, path, target)

    def list(self, prefix: str = "") -> list[ObjectInfo]:
        """Implement `Store.list` for an S3 bucket.

        Raises:
            NotFoundError: there is no such bucket.
        """
        cut = len(f"{self.prefix}/") if self.prefix else 0
        objects = [
            ObjectInfo(item["Key"][cut:], item["Size"], item["ETag"].strip('"'))
            for item in self._below(self._key(prefix) if prefix else self.prefix)
            if not item["Key"].endswith("/")  # a folder's marker, which some tools write
        ]
        return sorted(objects, key=lambda info: info.path)

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
        """Implement `Store.info` by a HEAD request."""
        with self._explained("read", path):
            client = self._reader()
            answer = patiently(lambda: client.head_object(Bucket=self.bucket, Key=self._key(path)))
        return ObjectInfo(path, answer["ContentLength"], answer["ETag"].strip('"'))

    def delete(self, path: str) -> None:
        """Implement `Store.delete` by a DELETE request."""
        with self._explained("delete", path):
            self._client().delete_object(Bucket=self.bucket, Key=self._key(path))

    def delete_tree(self, prefix: str) -> None:
        """Implement `Store.delete_tree`: markers of folders are deleted too."""
        keys = [item["Key"] for item in self._below(self._key(prefix))]
        for at in range(0, len(keys), DELETE_BATCH):
            batch: Any = {"Objects": [{"Key": key} for key in keys[at : at + DELETE_BATCH]], "Quiet": True}
            with self._explained("delete", prefix):
                answer = self._client().delete_objects(Bucket=self.bucket, Delete=batch)
            for error in answer.get("Errors", []):
                raise StorageError(f"cannot delete s3://{self.bucket}/{error.get('Key')}: {error.get('Message')}")

    def _client(self) -> "S3Client":
        return s3_client(self.endpoint, self.region, self.anonymous)

    def _reader(self) -> "S3Client":
        return s3_reader(self.endpoint, self.region, self.anonymous)

    def _key(self, path: str) -> str:
        return f"{self.prefix}/{checked_path(path)}".lstrip("/")

    def _name(self, path: str) -> str:
        return f"{self.describe()}/{path}" if path else self.describe()

    def _where(self) -> str:
        return self.endpoint or f"Amazon S3 ({self.region})"

    @contextmanager
    def _explained(self, verb: str, path: str) -> Iterator[None]:
        """Turn boto3's errors into raylens' own, within this context."""
        from botocore.exceptions import BotoCoreError, ClientError

        what = f"cannot {verb} {self._name(path)}"
        try:
            yield
        except ClientError as error:
            if code_of(error) == "404":  # a HEAD: object or bucket
                self._require_bucket(what)
            raise refusal(what, self._where(), self.bucket, error) from None
        except BotoCoreError as error:
            raise failure(what, self._where(), self.bucket, error) from None

    def _require_bucket(self, what: str) -> None:
        """Raise an error if the bucket is certainly missing; a policy may forbid the request."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self._client().head_bucket(Bucket=self.bucket)
        except BotoCoreError:
            return
        except ClientError as error:
            if code_of(error) in ("404", "NoSuchBucket"):
                raise missing_bucket(what, self._where(), self.bucket) from None


def _put_object(client: "S3Client", **request: Any) -> str:
    """Publish an object and return its ETag.

    S3 answers 409 to a conditional write while another one is in flight. This decides nothing: the repeated request
    succeeds, or fails because its condition does not hold.

    Raises:
        ClientError: S3 refuses.
        BotoCoreError: there is no connection.
    """
    from botocore.exceptions import ClientError

    for attempt in range(ATTEMPTS - 1):
        try:
            return client.put_object(**request)["ETag"].strip('"')
        except ClientError as error:
            if code_of(error) != "ConditionalRequestConflict":
                raise
        time.sleep(PAUSE_SECONDS * 2**attempt)
    return client.put_object(**request)["ETag"].strip('"')
