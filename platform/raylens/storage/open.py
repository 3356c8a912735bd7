"""Opening of object stores by URI: the check of a URI, and the store that it names."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from raylens.errors import ConfigError
from raylens.storage.base import Store, checked_path
from raylens.storage.gcs import GcsStore
from raylens.storage.local import LocalStore
from raylens.storage.s3.store import S3Store

__all__ = ["open_store"]

SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
ENDPOINT = re.compile(r"https?://[^/@?#\s]+/?")


@dataclass(frozen=True)
class _Kind:
    """The rules of one kind of bucket URI."""

    scheme: str
    names: re.Pattern[str]
    rule: str
    """The pattern of bucket names in words."""
    options: tuple[str, ...]
    credentials: str
    """What to set instead of writing credentials into the URI."""


S3 = _Kind(
    "s3",
    re.compile(r"(?!.*\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"),
    "3 to 63 lower-case letters, digits, '.' and '-'",
    ("endpoint_override", "region", "scheme", "anonymous"),
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a profile",
)
GCS = _Kind(
    "gs",
    re.compile(r"(?!.*\.\.)[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]"),
    "3 to 63 lower-case letters, digits, '-', '_' and '.'; up to 222 with dots",
    ("endpoint_override", "scheme", "anonymous"),
    "GOOGLE_APPLICATION_CREDENTIALS",
)


def open_store(uri: str | os.PathLike[str]) -> Store:
    """Open the store of a URI.

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
    match = SCHEME.match(text)
    if match is None:
        return LocalStore(_folder(text, text))
    scheme = match.group(1).lower()
    if scheme == "file":
        path = unquote(text[match.end() :])
        if not path.startswith("/"):
            raise ConfigError(f"storage URI {text!r}: another machine's files cannot be read; use file:///path")
        return LocalStore(_folder(path, text))
    if scheme == "s3":
        return _s3(text)
    if scheme == "gs":
        return _gcs(text)
    raise ConfigError(
        f"storage URI {_shown(text)!r}: scheme {scheme!r} is not known; use a path, file://, s3:// or gs://"
    )


def _folder(path: str, uri: str) -> str:
    if not path or "\0" in path:
        raise ConfigError(f"storage URI {uri!r}: the path is empty, or holds a null character")
    try:
        return os.path.abspath(Path(path).expanduser())  # noqa: PTH100 (links stay as the user wrote them)
    except RuntimeError:
        raise ConfigError(f"storage URI {uri!r}: there is no such user's home folder") from None


def _s3(uri: str) -> S3Store:
    parsed = _BucketUri(uri, S3)
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
    parsed = _BucketUri(uri, GCS)
    return GcsStore(parsed.bucket, parsed.prefix, parsed.endpoint(), parsed.anonymous)


class _BucketUri:
    """A checked URI of the form ``scheme://bucket/prefix?options``.

    Raises:
        ConfigError: the URI is not of this form; the message says what is allowed, and repeats no secret.
    """

    def __init__(self, uri: str, kind: _Kind) -> None:
        self._shown, self._kind = _shown(uri), kind
        parts = self._split(uri)
        self.bucket = parts.netloc
        self.options = self._options(parts.query)
        self.prefix = self._prefix(parts.path)

    @property
    def anonymous(self) -> bool:
        """Whether requests are made without credentials."""
        return self.options.get("anonymous", "false").lower() == "true"

    def endpoint(self, otherwise: str = "", source: str = "") -> str:
        """Return ``http://host:port``, or "" for the vendor's; if the URI has none, ``otherwise`` from ``source``."""
        endpoint = self.options.get("endpoint_override", otherwise)
        if endpoint and "://" not in endpoint:
            endpoint = f"{self.options.get('scheme', 'https')}://{endpoint}"
        if endpoint and not ENDPOINT.fullmatch(endpoint):
            named = "endpoint_override" if "endpoint_override" in self.options else source
            raise self._wrong(f"{named} must look like http://host:port, without credentials or a path")
        return endpoint.rstrip("/")

    def _split(self, uri: str) -> SplitResult:
        try:
            parts = urlsplit(uri)
        except ValueError:
            raise ConfigError(
                f"storage URI {self._shown!r} is not a URI; write {self._kind.scheme}://bucket/prefix"
            ) from None
        if "@" in parts.netloc or ":" in parts.netloc:
            raise self._wrong(
                f"neither credentials nor a port belong before the bucket; set {self._kind.credentials}, and "
                "?endpoint_override=http://host:port"
            )
        if not self._kind.names.fullmatch(parts.netloc):
            raise self._wrong(f"bucket {parts.netloc!r} is not a bucket name ({self._kind.rule})")
        if "#" in uri:
            raise self._wrong("write '#' in a prefix as %23")
        return parts

    def _options(self, query: str) -> dict[str, str]:
        options = dict(parse_qsl(query, keep_blank_values=True))
        for key in options:
            if key not in self._kind.options:
                raise self._wrong(f"unknown option {key!r}; allowed: {', '.join(self._kind.options)}")
        if options.get("anonymous", "false").lower() not in ("true", "false"):
            raise self._wrong(f"anonymous = {options['anonymous']!r}; use true or false")
        if options.get("scheme", "https") not in ("http", "https"):
            raise self._wrong(f"scheme = {options['scheme']!r}; use http or https")
        return options

    def _prefix(self, path: str) -> str:
        prefix = "/".join(part for part in unquote(path).split("/") if part)
        try:
            return checked_path(prefix) if prefix else ""
        except ConfigError as error:
            raise self._wrong(str(error)) from None

    def _wrong(self, why: str) -> ConfigError:
        return ConfigError(f"storage URI {self._shown!r}: {why}")


def _shown(uri: str) -> str:
    """Return the URI without what may be secret: the user's part and the query."""
    return re.sub(r"//.*@", "//...@", uri, flags=re.DOTALL).partition("?")[0]
