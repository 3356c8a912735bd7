"""API keys, of which only hashes are stored; a changed file of keys takes effect within seconds."""

import asyncio
import hashlib
import hmac
import logging
import re
import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from raylens.errors import ConfigError, StorageError
from raylens.names import KEY_NAME
from raylens.storage import open_store

__all__ = ["Caller", "Key", "KeyRing", "new_key"]

logger = logging.getLogger("ray.serve")

PREFIX = "rl-"
RELOAD_SECONDS = 5.0


class Key(BaseModel):
    """An entry of the file of keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, AfterValidator(KEY_NAME.validated)]
    """The owner of the key, for logs and metrics."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Hash of the key. A fast hash is enough, because keys have 256 random bits and cannot be guessed."""
    items_per_second: Annotated[float, Field(gt=0)] | None = None
    """Rate limit of this key, in place of the service's own."""
    expires: AwareDatetime | None = None


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    keys: Annotated[tuple[Key, ...], Field(min_length=1)]


@dataclass(frozen=True)
class Caller:
    """The sender of a request, and its own rate limit."""

    name: str
    items_per_second: float | None = None


def new_key(name: str) -> tuple[str, Key]:
    """Make a key, which is shown once, and its entry for the file of keys.

    Raises:
        ConfigError: the name has other characters than letters, digits, dots, dashes and underscores.
    """
    key = PREFIX + secrets.token_urlsafe(32)
    return key, Key(name=KEY_NAME.check("name", name), sha256=_hash(key))


class KeyRing:
    """The keys of a file ``{"keys": [...]}``, a path or a URI of an object store.

    The file is read again every few seconds, so that keys come and go without a restart. A file that cannot
    be read or parsed changes nothing: the previous keys stay, and the log says so.

    Raises:
        ConfigError: the file cannot be read, or is no file of keys.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._keys = _read(uri)
        self._read_at = time.monotonic()
        self._reading = False

    async def caller(self, authorization: str) -> Caller | None:
        """Return the caller who sent this ``Authorization`` header; None if its key is unknown or expired."""
        if time.monotonic() - self._read_at > RELOAD_SECONDS and not self._reading:
            await self._reload()
        token = re.fullmatch(r"Bearer +(\S{1,512})", authorization.strip(), re.IGNORECASE)
        sent_hash = _hash(token.group(1) if token else "")
        match: Key | None = None
        for key in self._keys:  # all keys are compared, so that the time reveals nothing
            if hmac.compare_digest(key.sha256, sent_hash):
                match = key
        if match is None or token is None or (match.expires is not None and match.expires <= datetime.now(UTC)):
            return None
        return Caller(match.name, match.items_per_second)

    async def _reload(self) -> None:
        self._reading = True
        try:
            self._keys = await asyncio.to_thread(_read, self._uri)
        except ConfigError as error:
            logger.warning("the previous keys stay in use: %s", error)
        finally:
            self._reading = False
            self._read_at = time.monotonic()


def _read(uri: str) -> tuple[Key, ...]:
    path, question, query = uri.partition("?")
    folder, slash, name = path.rpartition("/")
    if not folder or folder.endswith("/"):  # '/keys.json', 'file:///keys.json': the slash is the folder
        folder += slash or "."
    try:
        keys = _File.model_validate_json(open_store(folder + question + query).read(name)).keys
    except StorageError as error:
        raise ConfigError(f"security.keys = {uri!r} cannot be read: {error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"])) or "file"
        raise ConfigError(f"security.keys = {uri!r}: {field}: {first['msg'].removeprefix('Value error, ')}") from None
    names = [key.name for key in keys]
    if len({key.sha256 for key in keys}) < len(keys):
        raise ConfigError(f"security.keys = {uri!r}: one key is listed twice; names: {', '.join(names)}")
    return keys


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
