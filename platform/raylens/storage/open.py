"""URIs to stores."""

import os
import re
from pathlib import Path
from urllib.parse import unquote

from raylens.errors import ConfigError
from raylens.storage.base import Store
from raylens.storage.bucket_uri import BucketUri, Kind, shown
from raylens.storage.gcs import GcsStore
from raylens.storage.local import LocalStore
from raylens.storage.s3.store import S3Store

__all__ = ["open_store"]

SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
S3 = Kind(
    "s3",
    re.compile(r"(?!.*\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"),
    "3 to 63 lower-case letters, digits, '.' and '-'",
    ("endpoint_override", "region", "scheme", "anonymous"),
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a profile",
)
GCS = Kind(
    "gs",
    re.compile(r"(?!.*\.\.)[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]"),
    "3 to 63 lower-case letters, digits, '-', '_' and '.'; up to 222 with dots",
    ("endpoint_override", "scheme", "anonymous"),
    "GOOGLE_APPLICATION_CREDENTIALS",
)


def open_store(uri: str | os.PathLike[str]) -> Store:
    """The store behind a URI.

    Args:
        uri: a path, ``file:///path``, or ``s3://bucket/prefix?endpoint_override=http://host:port&region=...``
            (``anonymous=true`` for public buckets). Where the URI names no endpoint or region, the environment's
            (``AWS_ENDPOINT_URL_S3``, ``AWS_ENDPOINT_URL``; ``AWS_REGION``, ``AWS_DEFAULT_REGION``) is written into
            it, so that all machines of a cluster use the same. An empty ``endpoint_override=`` is Amazon's own.
            ``gs://bucket/prefix``, with ``endpoint_override``, ``scheme`` and ``anonymous``, is read only.

    Raises:
        ConfigError: the URI is not of these forms; the message says what is allowed.
    """
    text = os.fspath(uri)
    found = SCHEME.match(text)
    if found is None:
        return LocalStore(_folder(text, text))
    scheme = found.group(1).lower()
    if scheme == "file":
        path = unquote(text[found.end() :])
        if not path.startswith("/"):
            raise ConfigError(f"storage URI {text!r}: another machine's files cannot be read; use file:///path")
        return LocalStore(_folder(path, text))
    if scheme == "s3":
        return _s3(text)
    if scheme == "gs":
        return _gcs(text)
    raise ConfigError(
        f"storage URI {shown(text)!r}: scheme {scheme!r} is not known; use a path, file://, s3:// or gs://"
    )


def _folder(path: str, uri: str) -> str:
    if not path or "\0" in path:
        raise ConfigError(f"storage URI {uri!r}: the path is empty, or holds a null character")
    try:
        return os.path.abspath(Path(path).expanduser())  # noqa: PTH100 (links stay as the user wrote them)
    except RuntimeError:
        raise ConfigError(f"storage URI {uri!r}: there is no such user's home folder") from None


def _s3(uri: str) -> S3Store:
    parsed = BucketUri(uri, S3)
    environment = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    return S3Store(
        bucket=parsed.bucket,
        prefix=parsed.prefix,
        endpoint=parsed.endpoint(environment, "AWS_ENDPOINT_URL(_S3)"),
        region=parsed.options.get("region")
        or os.environ.get("AWS_REGION")
        or os.environ.get("AWS_DEFAULT_REGION")
        or "us-east-1",
        anonymous=parsed.anonymous,
    )


def _gcs(uri: str) -> GcsStore:
    parsed = BucketUri(uri, GCS)
    return GcsStore(parsed.bucket, parsed.prefix, parsed.endpoint(), parsed.anonymous)
