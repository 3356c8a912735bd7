"""The parts of a URI that names a bucket."""

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from raylens.errors import ConfigError
from raylens.storage.base import checked_path

__all__ = ["BucketUri", "Kind", "shown"]

ENDPOINT = re.compile(r"https?://[^/@?#\s]+/?")


@dataclass(frozen=True)
class Kind:
    """What one kind of bucket URI may say."""

    scheme: str
    names: re.Pattern[str]
    rule: str
    """The pattern of names in words."""
    options: tuple[str, ...]
    credentials: str
    """What to set instead of writing them into the URI."""


class BucketUri:
    """``scheme://bucket/prefix?options``, checked.

    Raises:
        ConfigError: it is not of this form; the message says what is allowed, and repeats no secret.
    """

    def __init__(self, uri: str, kind: Kind) -> None:
        self._shown, self._kind = shown(uri), kind
        parts = self._split(uri)
        self.bucket = parts.netloc
        self.options = self._options(parts.query)
        self.prefix = self._prefix(parts.path)

    @property
    def anonymous(self) -> bool:
        """Whether to do without credentials."""
        return self.options.get("anonymous", "false").lower() == "true"

    def endpoint(self, otherwise: str = "", source: str = "") -> str:
        """``http://host:port``, or nothing for the owner's; if it is not said, ``otherwise``, found at ``source``."""
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


def shown(uri: str) -> str:
    """Without what may be secret: a user's part, and the query."""
    return re.sub(r"//.*@", "//...@", uri, flags=re.DOTALL).partition("?")[0]
