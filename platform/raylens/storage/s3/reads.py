"""Reading requests to S3, repeated where they fail in passing; a body that breaks off goes on where it stopped."""

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from raylens.errors import ChangedError, StorageError
from raylens.storage.base import changed
from raylens.storage.patience import Patience
from raylens.storage.s3.errors import code_of, status_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

__all__ = ["Reading", "patiently"]

PIECE_BYTES = 256 * 2**10
"""Read from the network at once; a connection that is reset loses at most this much."""
PASSING_STATUS = (429, 500, 502, 503, 504)
PASSING_CODES = ("RequestTimeout", "SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded")

T = TypeVar("T")


def patiently(request: Callable[[], T]) -> T:
    """The answer to a request that changes nothing; it is made again as `Patience` allows.

    Raises:
        ClientError: S3 refuses, or was busy each time.
        BotoCoreError: no connection, or each answer broke off.
    """
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.exceptions import ConnectionError as EndpointError

    patience = Patience()
    while True:
        try:
            return request()
        except (BotoCoreError, ClientError) as error:
            if not _passes(error) or not patience.wait(met=not isinstance(error, EndpointError)):
                raise


def _passes(error: Exception) -> bool:
    from botocore.exceptions import ClientError, FlexibleChecksumError, HTTPClientError, IncompleteReadError
    from botocore.exceptions import ConnectionError as EndpointError

    if isinstance(error, ClientError):
        return status_of(error) in PASSING_STATUS or code_of(error) in PASSING_CODES
    return isinstance(error, EndpointError | HTTPClientError | IncompleteReadError | FlexibleChecksumError)


class Reading:
    """An object, or a range of it, on its way."""

    def __init__(
        self, client: "S3Client", bucket: str, key: str, span: tuple[int, int] | None, version: str | None
    ) -> None:
        """``span`` is (first byte, length), or None for all; ``version`` is the ETag that it must have, or None."""
        self._client = client
        self._object: dict[str, Any] = {"Bucket": bucket, "Key": key}
        self._indexed = version is not None
        self._tag = f'"{version}"' if self._indexed else ""
        self._start = self._next = span[0] if span else 0
        self._stop = sum(span) if span else None
        self._pieces: list[bytes] = []

    def fetch(self, name: str) -> tuple[bytes, str]:
        """The content and its ETag; nothing where the range begins behind the end.

        Raises:
            ChangedError: the object ``name`` has another version than was asked for, or than its first part had.
            StorageError: the server ignores ranges.
            ClientError, BotoCoreError: as `patiently`.
        """
        from botocore.exceptions import ClientError

        try:
            patiently(lambda: self._go_on(name))
        except ClientError as error:
            if status_of(error) == 412:
                raise self._changed(name) from None
            if code_of(error) != "InvalidRange":
                raise
        return b"".join(self._pieces), self._tag.strip('"')

    def _go_on(self, name: str) -> None:
        """Ask for what is missing, and keep what comes."""
        from botocore.exceptions import FlexibleChecksumError

        answer = self._ask(name)
        with contextlib.closing(answer["Body"]) as body:
            try:
                while piece := body.read(PIECE_BYTES):
                    self._pieces.append(piece)
                    self._next += len(piece)
            except FlexibleChecksumError:  # which piece is the wrong one, nobody knows
                self._pieces, self._next = [], self._start
                raise

    def _ask(self, name: str) -> "GetObjectOutputTypeDef":
        limits: dict[str, Any] = {"IfMatch": self._tag} if self._tag else {}
        if self._stop is not None:
            limits["Range"] = f"bytes={self._next}-{self._stop - 1}"
        answer = self._get_object(limits)
        if self._stop is None:
            self._stop = answer["ContentLength"]
        elif not answer.get("ContentRange", "").startswith(f"bytes {self._next}-"):
            answer["Body"].close()
            raise StorageError(
                f"cannot read {name}: its server answers a request for bytes {self._next} on with others"
            )
        self._tag = answer["ETag"]
        return answer

    def _get_object(self, limits: dict[str, Any]) -> "GetObjectOutputTypeDef":
        from botocore.exceptions import HTTPClientError
        from urllib3.exceptions import HTTPError

        try:
            return self._client.get_object(**self._object, **limits)
        # The body of a refusal that breaks off: where bodies are streamed, botocore lets urllib3's error through.
        except HTTPError as error:
            raise HTTPClientError(error=error) from error

    def _changed(self, name: str) -> ChangedError:
        return changed(name) if self._indexed else ChangedError(f"{name} changed while it was read: read it again")
