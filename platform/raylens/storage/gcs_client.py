"""pyarrow's client for Google Cloud Storage, and what it says, in raylens' errors. Codes decide where there are any."""

import functools
import os
import re
from datetime import timedelta
from typing import TYPE_CHECKING

from raylens.errors import NotFoundError, StorageError, UnreachableError

if TYPE_CHECKING:
    from pyarrow.fs import GcsFileSystem

__all__ = ["failure", "gcs_filesystem", "missing_bucket"]

RETRY_SECONDS = 15
"""Google's library begins no further attempt after so long; pauses grow from a second, so four or five fit in."""
EMULATOR = "CLOUD_STORAGE_EMULATOR_ENDPOINT"
STATUS = re.compile(r"google::cloud::Status\((?P<code>[A-Z_]+): (?P<reason>.*?)(?: error_info=|\)?$)", re.DOTALL)
LOGIN = "set GOOGLE_APPLICATION_CREDENTIALS, or add ?anonymous=true to the URI of a public bucket"


def gcs_filesystem(endpoint: str, anonymous: bool) -> "GcsFileSystem":
    """pyarrow's filesystem, made once a process.

    Raises:
        UnreachableError: the environment would send it elsewhere.
    """
    if os.environ.get(EMULATOR, endpoint) != endpoint:
        raise UnreachableError(
            f"{EMULATOR} = {os.environ[EMULATOR]!r} overrules the endpoint {endpoint or 'of Google'!r} of the URI: "
            "unset it, or write it into the URI as ?endpoint_override="
        )
    return _filesystem(os.getpid(), endpoint, anonymous, RETRY_SECONDS)


@functools.lru_cache(maxsize=32)
def _filesystem(_process: int, endpoint: str, anonymous: bool, seconds: int) -> "GcsFileSystem":
    from pyarrow.fs import GcsFileSystem

    scheme, _, host = endpoint.partition("://")
    place = {"scheme": scheme, "endpoint_override": host} if endpoint else {}
    return GcsFileSystem(anonymous=anonymous, retry_time_limit=timedelta(seconds=seconds), **place)


def missing_bucket(what: str, where: str, bucket: str) -> NotFoundError:
    """For a bucket that is not there."""
    return NotFoundError(f"{what}: there is no bucket {bucket!r} at {where}: create it, or check the name")


def failure(what: str, where: str, bucket: str, error: Exception) -> StorageError:
    """What pyarrow raised, in one line."""
    found = STATUS.search(str(error))
    code, reason = (found["code"], found["reason"]) if found else ("", str(error))
    reason = " ".join(reason.rpartition("last message of ")[2].split())
    if isinstance(error, FileNotFoundError) or code == "NOT_FOUND":
        return NotFoundError(f"{what}: there is no such object")
    if isinstance(error, PermissionError) or code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return UnreachableError(f"{what}: {where} refuses access ({code}): check its permissions; {LOGIN}")
    if "access token" in reason:  # the one case without a code of its own
        return UnreachableError(f"{what}: no Google credentials ({_last_sentence(reason)}): {LOGIN}")
    if code in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL"):
        return UnreachableError(
            f"{what}: {where} does not answer for bucket {bucket!r} ({reason}): check the endpoint and the network"
        )
    return StorageError(f"{what} at {where}: {code} {reason}")


def _last_sentence(reason: str) -> str:
    return reason.rpartition("error message was: ")[2]
