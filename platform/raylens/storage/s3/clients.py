"""The S3 clients of a process, boto3's and pyarrow's, with the same endpoint and credentials."""

import functools
import os
from typing import TYPE_CHECKING, Any

from raylens.errors import UnreachableError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from pyarrow.fs import S3FileSystem

__all__ = ["ATTEMPTS", "s3_client", "s3_filesystem", "s3_reader"]

CONNECT_SECONDS, REQUEST_SECONDS, ATTEMPTS = 3, 30, 3
STALL_SECONDS = 10
"""The time without any data after which a read is repeated."""
# A store's URI is complete: the environment of the machine that reads it must not redirect it.
URI_DECIDES: dict[str, Any] = {"ignore_configured_endpoint_urls": True}


def s3_client(endpoint: str, region: str, anonymous: bool) -> "S3Client":
    """Return boto3's client, made once per process: connections must not be shared with a forked child."""
    return _client(os.getpid(), endpoint, region, anonymous, ATTEMPTS, REQUEST_SECONDS)


def s3_reader(endpoint: str, region: str, anonymous: bool) -> "S3Client":
    """Return boto3's client for `raylens.storage.s3.reads`, which repeats requests itself."""
    return _client(os.getpid(), endpoint, region, anonymous, 1, STALL_SECONDS)


def s3_filesystem(endpoint: str, region: str, anonymous: bool) -> "S3FileSystem":
    """Return pyarrow's filesystem, which is made once per process."""
    return _filesystem(os.getpid(), endpoint, region, anonymous)


@functools.lru_cache(maxsize=64)
def _client(_process: int, endpoint: str, region: str, anonymous: bool, attempts: int, seconds: float) -> "S3Client":
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    config = Config(
        retries={"mode": "standard", "total_max_attempts": attempts},
        connect_timeout=CONNECT_SECONDS,
        read_timeout=seconds,
        signature_version=UNSIGNED if anonymous else None,
        # A custom endpoint seldom resolves names such as bucket.host.
        s3={"addressing_style": "path" if endpoint else "auto"},
        **URI_DECIDES,
    )
    session = boto3.Session()
    if not anonymous:
        _credentials(session)
    return session.client("s3", endpoint_url=endpoint or None, region_name=region, config=config)


@functools.lru_cache(maxsize=32)
def _filesystem(_process: int, endpoint: str, region: str, anonymous: bool) -> "S3FileSystem":
    import boto3
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

    options: dict[str, Any] = {"anonymous": True} if anonymous else _static_keys(_credentials(boto3.Session()))
    if endpoint:
        scheme, _, host = endpoint.partition("://")
        options |= {"endpoint_override": host, "scheme": scheme}
    return S3FileSystem(
        region=region,
        connect_timeout=CONNECT_SECONDS,
        request_timeout=REQUEST_SECONDS,
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
        **options,
    )


def _credentials(session: Any) -> Any:
    credentials = session.get_credentials()
    if credentials is None:
        raise UnreachableError(
            "no S3 credentials found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, configure a profile "
            "(AWS_PROFILE), or add ?anonymous=true to the URI of a public bucket"
        )
    return credentials


def _static_keys(credentials: Any) -> dict[str, str]:
    """Return boto3's keys for pyarrow; keys that expire are left to AWS's own chain, which renews them."""
    if hasattr(credentials, "refresh_needed"):
        return {}
    frozen = credentials.get_frozen_credentials()
    keys = {"access_key": frozen.access_key, "secret_key": frozen.secret_key}
    return {**keys, "session_token": frozen.token} if frozen.token else keys
