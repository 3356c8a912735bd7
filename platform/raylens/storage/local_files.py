"""What the operating system says of files, in the words of stores."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from raylens.errors import NotFoundError, StorageError
from raylens.storage.base import ObjectInfo, changed

__all__ = ["explained", "file_info", "require_version", "walk"]


@contextmanager
def explained(verb: str, path: Path) -> Iterator[None]:
    """The operating system's complaints in our words."""
    try:
        yield
    except OSError as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError)
        # A name that is too long and a link to itself cannot be anything.
        absent = verb != "write" and (missing or error.errno in (errno.ENAMETOOLONG, errno.ELOOP))
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


def walk(root: str, folder: Path, hidden: str) -> Iterator[Path]:
    """All files below a folder of a store, links followed; not those within a link to a folder that it is in.

    Args:
        root: the store's own folder.
        folder: it, or one below it.
        hidden: begins the names of files and folders that are left out.

    Raises:
        OSError: a folder cannot be listed.
    """
    for parent, folders, names in os.walk(folder, onerror=_missing_is_empty, followlinks=True):
        above = _above(root, Path(parent)) if any(Path(parent, name).is_symlink() for name in folders) else []
        folders[:] = [
            name for name in folders if not name.startswith(hidden) and not _leads_back(Path(parent, name), above)
        ]
        yield from (Path(parent, name) for name in names if not name.startswith(hidden))


def _above(root: str, folder: Path) -> list[Path]:
    """Where a folder and those that it is reached through really are, the store's own included."""
    return [Path(os.path.realpath(one)) for one in (folder, *folder.parents) if one.is_relative_to(root)]


def _leads_back(folder: Path, above: list[Path]) -> bool:
    if not above or not folder.is_symlink():
        return False
    target = Path(os.path.realpath(folder))
    return any(one.is_relative_to(target) for one in above)


def _missing_is_empty(error: OSError) -> None:
    """What `os.walk` does about a folder that is not there: nothing."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError) and error.errno != errno.ELOOP:
        raise error


def _version(status: os.stat_result) -> str:
    return f"{status.st_size}-{status.st_mtime_ns}"
