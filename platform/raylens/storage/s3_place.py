"""Which bucket of which S3 server, and what to say when it complains."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self
from urllib.parse import quote, urlencode

from raylens.storage.base import Store, checked_path
from raylens.storage.s3.clients import s3_client, s3_filesystem, s3_reader
from raylens.storage.s3.errors import code_of, failure, missing_bucket, refusal

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from pyarrow.fs import FileSystem

__all__ = ["S3Place"]


@dataclass(frozen=True)
class S3Place(Store):
    """A prefix of a bucket, and the clients for it."""

    bucket: str
    prefix: str
    endpoint: str
    """Empty for Amazon's own."""
    region: str
    anonymous: bool = False

    @property
    def uri(self) -> str:
        """With endpoint (empty: Amazon's own) and region, so that every machine reaches the same bucket."""
        options = {"region": self.region, "endpoint_override": self.endpoint}
        if self.anonymous:
            options["anonymous"] = "true"
        return f"s3://{self.bucket}/{quote(self.prefix)}".rstrip("/") + f"?{urlencode(options, safe=':/')}"

    def describe(self) -> str:
        """``s3://bucket/prefix``."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def __truediv__(self, sub: str) -> Self:
        return replace(self, prefix=self._key(sub))

    def arrow(self) -> "tuple[FileSystem, str]":
        """pyarrow's S3 filesystem with this store's endpoint, region and credentials."""
        with self._explained("open", ""):
            filesystem = s3_filesystem(self.endpoint, self.region, self.anonymous)
        return filesystem, f"{self.bucket}/{self.prefix}".rstrip("/")

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
        """boto3's complaints in our words."""
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
        """Raise if the bucket is certainly missing; a policy may forbid asking."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self._client().head_bucket(Bucket=self.bucket)
        except BotoCoreError:
            return
        except ClientError as error:
            if code_of(error) in ("404", "NoSuchBucket"):
                raise missing_bucket(what, self._where(), self.bucket) from None
