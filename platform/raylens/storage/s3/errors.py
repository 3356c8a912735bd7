"""The errors of S3 and botocore as raylens' own, chosen by code and never by text."""

from typing import TYPE_CHECKING

from raylens.errors import AlreadyExistsError, ConflictError, NotFoundError, StorageError, UnreachableError
from raylens.storage.base import missing_bucket

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

__all__ = ["code_of", "failure", "refusal", "status_of"]

REFUSED = ("AccessDenied", "ExpiredToken", "InvalidToken", "RequestTimeTooSkewed")
FULL = ("QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded")
"""The error codes of Ceph and MinIO for a full bucket; S3 itself is never full."""
ELSEWHERE = ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException")


def code_of(error: "ClientError") -> str:
    """Return S3's error code, or the bare HTTP status if the answer has no body (HEAD)."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: "ClientError") -> int:
    """Return the HTTP status of an error."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def refusal(what: str, where: str, bucket: str, error: "ClientError") -> StorageError:
    """Return the error for an answer of S3 that is not a success."""
    code = code_of(error)
    status = status_of(error)
    if code == "NoSuchBucket":
        return missing_bucket(what, where, bucket)
    if status == 404:
        return NotFoundError(f"{what}: there is no such object")
    if status == 412:
        return AlreadyExistsError(f"{what}: it exists already")
    if code == "ConditionalRequestConflict":
        return ConflictError(
            f"{what}: another process wrote or deleted it at the same moment: check it, then try again"
        )
    if code in FULL:
        return UnreachableError(
            f"{what}: bucket {bucket!r} at {where} is full ({code}): free some space, or raise its quota"
        )
    if status in (401, 403) or code in REFUSED:
        return UnreachableError(f"{what}: {where} refuses access ({code}): check credentials and policy")
    if status == 301 or code in ELSEWHERE:
        return UnreachableError(f"{what}: bucket {bucket!r} is not in this region ({code}): set ?region= in its URI")
    kind = UnreachableError if status >= 500 else StorageError
    return kind(f"{what}: {where} answers {code}: {error.response.get('Error', {}).get('Message')}")


def failure(what: str, where: str, bucket: str, error: Exception) -> StorageError:
    """Return the error for a request without a complete answer, due to the connection or boto3's configuration."""
    from botocore.exceptions import ConnectionError as EndpointError
    from botocore.exceptions import HTTPClientError

    reason = " ".join(str(error).split())
    if isinstance(error, EndpointError | HTTPClientError):
        return UnreachableError(
            f"{what}: {where} does not answer for bucket {bucket!r} ({reason}): check the endpoint and the network"
        )
    return UnreachableError(f"{what} at {where}: {reason}")
