"""Files that only their owner can read, replaced atomically."""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from raylens.errors import ConfigError

__all__ = ["locked", "replace_bytes", "replace_private"]


def replace_private(file: Path, text: str) -> None:
    """Write ``text`` atomically, readable for its owner alone: others see the old file or the new one.

    Raises:
        ConfigError: the folder or the file cannot be written.
    """
    replace_bytes(file, text.encode())


def replace_bytes(file: Path, data: bytes) -> None:
    """Write bytes as `replace_private` writes text.

    Raises:
        ConfigError: the folder or the file cannot be written.
    """
    beside = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as sink:
            sink.write(data)
        beside.replace(file)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise ConfigError(f"cannot write {file}: {error.strerror}") from None


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold a lock on ``file``: no other process that asks for the same lock changes it meanwhile.

    Raises:
        ConfigError: the folder of the file cannot be written.
    """
    beside = file.with_name(f".{file.name}.lock")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(beside, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigError(f"cannot write {file}: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
