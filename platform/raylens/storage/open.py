"""URIs to stores."""

import os
import re
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from raylens.errors import ConfigError
from raylens.storage.base import Store, checked_path
from raylens.storage.local import LocalStore
from raylens.storage.s3 import S3Store

__all__ = ["open_store"]

BUCKET = re.compile(r"(?!.*\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
ENDPOINT = re.compile(r"https?://[^/@?#\s]+/?")
S3_OPTIONS = ("endpoint_override", "region", "scheme", "anonymous")
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def open_store(uri: str | os.PathLike[str]) -> Store:
    """The store behind a URI.

    Args:
        uri: a path, ``file:///path``, or ``s3://bucket/prefix?endpoint_override=http://host:port&region=...``
            (``anonymous=true`` for public buckets). Where the URI names no endpoint or region, the environment's
            (``AWS_ENDPOINT_URL_S3``, ``AWS_ENDPOINT_URL``; ``AWS_REGION``, ``AWS_DEFAULT_REGION``) is written into
            it, so that all machines of a cluster use the same. An empty ``endpoint_override=`` is Amazon's own.

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
    raise ConfigError(f"storage URI {_shown(text)!r}: scheme {scheme!r} is not known; use a path, file:// or s3://")


def _folder(path: str, uri: str) -> str:
    if not path or "\0" in path:
        raise ConfigError(f"storage URI {uri!r}: the path is empty, or holds a null character")
    try:
        return os.path.abspath(Path(path).expanduser())  # noqa: PTH100 (links stay as the user wrote them)
    except RuntimeError:
        raise ConfigError(f"storage URI {uri!r}: there is no such user's home folder") from None


def _s3(uri: str) -> S3Store:
    shown = _shown(uri)
    parts = _split(uri, shown)
    options = _options(parts.query, shown)
    return S3Store(
        bucket=parts.netloc,
        prefix=_prefix(parts.path, shown),
        endpoint=_endpoint(options, shown),
        region=options.get("region")
        or os.environ.get("AWS_REGION")
        or os.environ.get("AWS_DEFAULT_REGION")
        or "us-east-1",
        anonymous=options.get("anonymous", "false").lower() == "true",
    )


def _split(uri: str, shown: str) -> SplitResult:
    try:
        parts = urlsplit(uri)
    except ValueError:
        raise ConfigError(f"storage URI {shown!r} is not a URI; write s3://bucket/prefix") from None
    if "@" in parts.netloc or ":" in parts.netloc:
        raise ConfigError(
            f"storage URI {shown!r}: neither credentials nor a port belong before the bucket; set AWS_ACCESS_KEY_ID "
            "and AWS_SECRET_ACCESS_KEY or a profile, and ?endpoint_override=http://host:port"
        )
    if not BUCKET.fullmatch(parts.netloc):
        raise ConfigError(
            f"storage URI {shown!r}: bucket {parts.netloc!r} is not a bucket name (3 to 63 lower-case letters, "
            "digits, '.' and '-')"
        )
    if "#" in uri:
        raise ConfigError(f"storage URI {shown!r}: write '#' in a prefix as %23")
    return parts


def _options(query: str, shown: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    for key in options:
        if key not in S3_OPTIONS:
            raise ConfigError(f"storage URI {shown!r}: unknown option {key!r}; allowed: {', '.join(S3_OPTIONS)}")
    if options.get("anonymous", "false").lower() not in ("true", "false"):
        raise ConfigError(f"storage URI {shown!r}: anonymous = {options['anonymous']!r}; use true or false")
    if options.get("scheme", "https") not in ("http", "https"):
        raise ConfigError(f"storage URI {shown!r}: scheme = {options['scheme']!r}; use http or https")
    return options


def _prefix(path: str, shown: str) -> str:
    prefix = "/".join(part for part in unquote(path).split("/") if part)
    try:
        return checked_path(prefix) if prefix else ""
    except ConfigError as error:
        raise ConfigError(f"storage URI {shown!r}: {error}") from None


def _endpoint(options: dict[str, str], shown: str) -> str:
    environment = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    endpoint = options.get("endpoint_override", environment)
    if endpoint and "://" not in endpoint:
        endpoint = f"{options.get('scheme', 'https')}://{endpoint}"
    if endpoint and not ENDPOINT.fullmatch(endpoint):
        source = "endpoint_override" if "endpoint_override" in options else "AWS_ENDPOINT_URL(_S3)"
        raise ConfigError(
            f"storage URI {shown!r}: {source} must look like http://host:port, without credentials or a path"
        )
    return endpoint.rstrip("/")


def _shown(uri: str) -> str:
    """Without what may be secret: a user's part, and the query."""
    return re.sub(r"//.*@", "//...@", uri, flags=re.DOTALL).partition("?")[0]
