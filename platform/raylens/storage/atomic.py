"""Files that appear only when they are whole."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["HIDDEN", "beside", "publish", "sync"]

HIDDEN = ".raylens-"
"""Begins the names of temporary and lock files, which are not objects."""


@contextmanager
def beside(target: Path) -> Iterator[Path]:
    """A hidden name in the folder of a file, gone at the end."""
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_name(f"{HIDDEN}{uuid.uuid4().hex}")
    try:
        yield new
    finally:
        new.unlink(missing_ok=True)


def publish(new: Path, target: Path) -> None:
    """Move a finished file to its place, so that it survives a loss of power from here on."""
    sync(new)
    new.replace(target)
    sync(target.parent)


def sync(path: Path) -> None:
    """Force a file's content, or a folder's entries, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
