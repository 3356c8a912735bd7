"""What the operating system says of files, in the words of stores."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from raylens.errors import NotFoundError, StorageError
from raylens.storage.base import ObjectInfo, changed

__all__ = ["explained", "file_info", "missing_is_empty", "require_version"]


@contextmanager
def explained(verb: str, path: Path) -> Iterator[None]:
    """The operating system's complaints in our words."""
    try:
        yield
    except OSError as error:
        absent = isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError) and verb != "write"
        kind = NotFoundError if absent else StorageError
        raise kind(f"cannot {verb} {path}: {error.strerror or error}") from None


def file_info(file: Path, path: str) -> ObjectInfo:
    """Size and version of a file whose path in its store is ``path``.

    Raises:
        NotFoundError: there is none, or it is no regular file.
    """
    with explained("read", file):
        status = file.stat()
    if not stat.S_ISREG(status.st_mode):
        raise NotFoundError(f"{file} is not a file")
    return ObjectInfo(path, status.st_size, _version(status))


def require_version(stream: BinaryIO, version: str | None) -> None:
    """Ask after reading, of the open file: so neither a rename nor a write in place comes between.

    Raises:
        ChangedError: it has another version; None is any.
    """
    if version is not None and _version(os.fstat(stream.fileno())) != version:
        raise changed(str(stream.name))


def missing_is_empty(error: OSError) -> None:
    """What `os.walk` does about a folder that is not there: nothing."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def _version(status: os.stat_result) -> str:
    return f"{status.st_size}-{status.st_mtime_ns}"
