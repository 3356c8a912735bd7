"""Reading requests to S3, repeated where they fail in passing; a body that breaks off goes on where it stopped."""

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
"""Read from the network at once; a connection that is reset loses at most this much."""
PASSING_STATUS = (429, 500, 502, 503, 504)
PASSING_CODES = ("RequestTimeout", "SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded")
ATTEMPTS = 8
"""Requests that one read may take. Where one request of 20 fails, one read of 25,000,000,000 does."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 16.0
"""Pauses of up to 0.5, 1, 2, 4, 8, 16 and 16 s, drawn evenly from nothing up: 48 s at most, 24 s on average."""
NO_CONNECTION_SECONDS = 10.0
"""Where no attempt met anybody (refused, timed out, unknown host), the store is down or its name is wrong."""
_longer_seconds: float | None = None

# Not the module's own generator: training seeds that one, with the same number on many machines.
_JITTER = random.SystemRandom()

T = TypeVar("T")


def be_patient(seconds: float) -> None:
    """From now on, in this process, wait so long for a store that nobody meets: one that was there before."""
    global _longer_seconds
    _longer_seconds = seconds


class Patience:
    """That of one read. Progress takes nothing back: a read has its attempts, however far each one came."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._attempts = 0
        self._met = False

    def wait(self, *, met: bool) -> bool:
        """Pause after a failed attempt.

        Args:
            met: whether somebody answered, or at least took the connection.

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
