"""Objects into files, by ranges that several threads read."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from raylens.errors import ChangedError, StorageError
from raylens.storage.atomic import beside, publish
from raylens.storage.base import ObjectInfo, Store

__all__ = ["download_parts"]

PART_BYTES, THREADS = 8 * 2**20, 8


def download_parts(store: Store, path: str, target: Path) -> None:
    """Copy an object into a file that appears only when it is whole.

    Raises:
        NotFoundError: there is no such object.
        ChangedError: it changed in the meantime.
        StorageError: the file cannot be written.
    """
    found = store.info(path)
    try:
        with beside(target) as new:
            with new.open("wb") as sink:
                _fill(sink, store, found)
            publish(new, target)
    except ChangedError:
        raise ChangedError(f"{store.describe()}/{path} changed while it was downloaded: start again") from None
    except OSError as error:
        raise StorageError(f"cannot write {target}: {error.strerror or error}") from None


def _fill(sink: BinaryIO, store: Store, found: ObjectInfo) -> None:
    def part(offset: int) -> None:
        length = min(PART_BYTES, found.size - offset)
        left = memoryview(store.read_range(found.path, offset, length, version=found.version))
        while left:  # a disk that fills up takes a part of it first
            written = os.pwrite(sink.fileno(), left, offset)
            left, offset = left[written:], offset + written

    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(part, range(0, found.size, PART_BYTES)):
            pass
