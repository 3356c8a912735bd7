"""Read requests to S3, repeated after transient failures; a body that breaks off continues where it stopped."""

import contextlib
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from raylens.errors import ChangedError, StorageError
from raylens.storage.base import changed
from raylens.storage.s3.errors import code_of, status_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

__all__ = ["Patience", "Reading", "be_patient", "patiently"]

PIECE_BYTES = 256 * 2**10
"""The bytes read from the network at a time; a connection that is reset loses at most these."""
PASSING_STATUS = (429, 500, 502, 503, 504)
PASSING_CODES = ("RequestTimeout", "SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded")
ATTEMPTS = 8
"""The most requests of one read. If 1 request in 20 fails, 1 read in 25,000,000,000 does."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 16.0
"""Pauses are drawn evenly from 0 to 0.5, 1, 2, 4, 8, 16 and 16 s: at most 48 s in total, 24 s on average."""
NO_CONNECTION_SECONDS = 10.0
"""The time limit if no attempt connects (refused, timed out, unknown host): the store is down or its name wrong."""
_longer_seconds: float | None = None

# Not the generator of `random` itself: training seeds that one with the same number on many machines.
_JITTER = random.SystemRandom()

T = TypeVar("T")


def be_patient(seconds: float) -> None:
    """Let reads in this process wait ``seconds`` for a store that does not answer, because it was reachable before."""
    global _longer_seconds
    _longer_seconds = seconds


class Patience:
    """The attempts of one read and the pauses between them. Progress adds no attempts."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._attempts = 0
        self._met = False

    def wait(self, *, met: bool) -> bool:
        """Pause after a failed attempt.

        Args:
            met: whether the server answered, or at least accepted the connection.

        Returns:
            Whether to try again.
        """
        self._attempts += 1
        self._met |= met
        if self._met and self._attempts >= ATTEMPTS:
            return False
        longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(self._attempts - 1, ATTEMPTS))
        pause = _JITTER.uniform(0, longest)
        most = NO_CONNECTION_SECONDS if _longer_seconds is None else _longer_seconds
        if not self._met and time.monotonic() - self._began + pause > most:
            return False
        time.sleep(pause)
        return True


def patiently(request: Callable[[], T]) -> T:
    """Make a request that changes nothing, repeat it as `Patience` allows, and return the answer.

    Raises:
        ClientError: S3 refuses, or was busy each time.
        BotoCoreError: there is no connection, or each answer broke off.
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
    """The read of an object or of a range, in as many requests as it takes."""

    def __init__(
        self, client: "S3Client", bucket: str, key: str, span: tuple[int, int] | None, version: str | None
    ) -> None:
        """Prepare a read: ``span`` is (first byte, length), or None for all; ``version`` the required ETag, or None."""
        self._client = client
        self._object: dict[str, Any] = {"Bucket": bucket, "Key": key}
        self._indexed = version is not None
        self._tag = f'"{version}"' if self._indexed else ""
        self._start = self._next = span[0] if span else 0
        self._stop = sum(span) if span else None
        self._pieces: list[bytes] = []

    def fetch(self, name: str) -> tuple[bytes, str]:
        """Return the content and its ETag; the content is empty if the range begins beyond the end.

        Raises:
            ChangedError: the object ``name`` has another version than the required one, or than its first part.
            StorageError: the server ignores ranges.
            ClientError, BotoCoreError: see `patiently`.
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
        """Request the missing part, and keep what arrives."""
        from botocore.exceptions import FlexibleChecksumError

        answer = self._ask(name)
        with contextlib.closing(answer["Body"]) as body:
            try:
                while piece := body.read(PIECE_BYTES):
                    self._pieces.append(piece)
                    self._next += len(piece)
            except FlexibleChecksumError:  # it is not known which piece is wrong
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
                f"cannot read {name}: its server answers a request for bytes from {self._next} with other bytes"
            )
        self._tag = answer["ETag"]
        return answer

    def _get_object(self, limits: dict[str, Any]) -> "GetObjectOutputTypeDef":
        from botocore.exceptions import HTTPClientError
        from urllib3.exceptions import HTTPError

        try:
            return self._client.get_object(**self._object, **limits)
        # A refusal whose body breaks off: botocore passes urllib3's error through where bodies are streamed.
        except HTTPError as error:
            raise HTTPClientError(error=error) from error

    def _changed(self, name: str) -> ChangedError:
        return changed(name) if self._indexed else ChangedError(f"{name} changed while it was read: read it again")
