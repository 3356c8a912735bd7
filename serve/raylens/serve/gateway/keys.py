"""API keys: only their hashes are at rest, and a changed file counts within seconds."""

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
    """Whose it is; for logs and metrics."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Of the key. Keys have 256 random bits, so that a fast hash is enough: there is nothing to guess."""
    items_per_second: Annotated[float, Field(gt=0)] | None = None
    """In place of the service's own limit."""
    expires: AwareDatetime | None = None


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    keys: Annotated[tuple[Key, ...], Field(min_length=1)]


@dataclass(frozen=True)
class Caller:
    """Who sends a request."""

    name: str
    items_per_second: float | None = None


def new_key(name: str) -> tuple[str, Key]:
    """A key for somebody, shown once, and its entry for the file.

    Raises:
        ConfigError: the name does not fit.
    """
    key = PREFIX + secrets.token_urlsafe(32)
    return key, Key(name=KEY_NAME.check("name", name), sha256=_hash(key))


class KeyRing:
    """The keys of a file ``{"keys": [...]}``, a path or a URI of an object store.

    The file is read again every few seconds, so that keys come and go without a restart. One that cannot be read
    or parsed changes nothing: the keys before stay, and the log says so.

    Raises:
        ConfigError: the file cannot be read, or is no file of keys.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._keys = _read(uri)
        self._read_at = time.monotonic()
        self._reading = False

    async def caller(self, authorization: str) -> Caller | None:
        """Who has this ``Authorization`` header; None if nobody does."""
        if time.monotonic() - self._read_at > RELOAD_SECONDS and not self._reading:
            await self._reload()
        token = re.fullmatch(r"Bearer +(\S{1,512})", authorization.strip(), re.IGNORECASE)
        asked = _hash(token.group(1) if token else "")
        found: Key | None = None
        for key in self._keys:  # all of them, whichever fits: the time taken says nothing
            if hmac.compare_digest(key.sha256, asked):
                found = key
        if found is None or token is None or (found.expires is not None and found.expires <= datetime.now(UTC)):
            return None
        return Caller(found.name, found.items_per_second)

    async def _reload(self) -> None:
        self._reading = True
        try:
            self._keys = await asyncio.to_thread(_read, self._uri)
        except ConfigError as error:
            logger.warning("the keys stay as they were: %s", error)
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
        place = ".".join(map(str, first["loc"])) or "file"
        raise ConfigError(f"security.keys = {uri!r}: {place}: {first['msg']}") from None
    names = [key.name for key in keys]
    if len({key.sha256 for key in keys}) < len(keys):
        raise ConfigError(f"security.keys = {uri!r}: one key stands there twice; names: {', '.join(names)}")
    return keys


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
