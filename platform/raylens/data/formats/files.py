"""Images that are objects of their own, named by records: a few threads read ahead and yield results in order."""

import json
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import unquote

from raylens.data.formats.base import Kind, Pair, RawSample, SampleLocation, file_record
from raylens.errors import ConfigError, ManifestError, NotFoundError
from raylens.storage import Store, open_store

__all__ = ["ImageRow", "has_parent_part", "is_elsewhere", "locate", "read_files", "unique_key", "walk_files"]

THREADS, AHEAD = 8, 16
"""Requests at a time, and most images held in memory."""
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class ImageRow:
    """An image and its captions, as a table or a folder names them; with a ``reason`` if it cannot be used."""

    image: str
    """Path in the store of the data set, absolute path on this machine, or URI."""
    captions: tuple[str, ...] | None = None
    reason: str | None = None


def is_elsewhere(image: str) -> bool:
    """Return whether a path is absolute or a URI, not relative to the data set."""
    return image.startswith("/") or SCHEME.match(image) is not None


def has_parent_part(image: str) -> bool:
    """Return whether a path would leave its folder by ``..``."""
    return ".." in image.replace("%2e", ".").replace("%2E", ".").split("/")


def locate(store: Store, image: str) -> tuple[Store, str]:
    """Return the store that holds an image, and its path there.

    A URI without options takes those of the data set's URI if both have the same scheme.

    Raises:
        ConfigError: the image is not a path or URI of a store.
    """
    scheme = SCHEME.match(image)
    if scheme is None:
        parent, slash, name = image.rpartition("/")
        return (open_store(parent or slash), name) if image.startswith("/") else (store, image)
    local = scheme.group(1).lower() == "file"
    path, _, options = (image, "", "") if local else image.partition("?")
    parent, _, name = path.rpartition("/")
    if len(parent) < scheme.end() and not local:
        raise ConfigError(f"image {path!r} does not name an object: write {scheme.group()}bucket/path")
    own_scheme = SCHEME.match(store.uri)
    if not local and not options and own_scheme and own_scheme.group().lower() == scheme.group().lower():
        options = store.uri.partition("?")[2]
    # The parent of file:///name is the root.
    folder = f"{parent}/" if len(parent) <= scheme.end() else parent
    return open_store(f"{folder}?{options}" if options else folder), unquote(name)


def walk_files(store: Store, rows: Iterable[ImageRow]) -> Iterator[RawSample]:
    """Yield a sample for each row, in order; images are read whole.

    Raises:
        StorageError: a store does not respond.
    """
    seen: dict[str, int] = {}
    for row, (image, reason) in _in_order(lambda row: (row, _fetch(store, row)), rows):
        sample = RawSample(unique_key(os.path.splitext(row.image)[0], seen), image, row.captions, reason=reason)  # noqa: PTH122 (URIs too)
        if image is not None:
            sample.location = SampleLocation(length=len(image), kind=Kind.FILE)
            sample.record = file_record(row.image, row.captions or ())
        yield sample


def _fetch(store: Store, row: ImageRow) -> tuple[bytes | None, str | None]:
    if row.reason:
        return None, row.reason
    try:
        home, name = locate(store, row.image)
        return home.read(name), None
    except NotFoundError:
        return None, "image file is missing"
    except ConfigError:
        return None, "image path cannot be used"


def unique_key(key: str, seen: dict[str, int]) -> str:
    """Return the key, with a number appended if ``seen`` has it already; record it in ``seen``."""
    unique = key
    while unique in seen:
        seen[key] += 1
        unique = f"{key}#{seen[key]}"
    seen[unique] = 1
    return unique


def read_files(store: Store, locations: Sequence[SampleLocation], records: Sequence[bytes]) -> Iterator[Pair]:
    """Yield the images and captions of records, in order.

    Raises:
        ManifestError: an image is missing or has another length; the message names it.
        StorageError: a store does not respond.
    """
    return _in_order(lambda item: _pair(store, *item), zip(locations, records, strict=True))


def _pair(store: Store, location: SampleLocation, record: bytes) -> Pair:
    fields = json.loads(record)
    home, name = locate(store, fields["image"])
    try:
        image = home.read(name)
    except NotFoundError:
        raise ManifestError(
            f"image {name} of {home.describe()} has been removed since it was indexed: {_REMEDY}"
        ) from None
    if len(image) != location.length:
        raise ManifestError(
            f"image {name} of {home.describe()} has changed since it was indexed: it has {len(image)} bytes, "
            f"not {location.length}; {_REMEDY}"
        )
    return Pair(image, tuple(fields["captions"]) or ("",))


_REMEDY = "restore the old file, or start a new run with another name"


def _in_order(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(THREADS) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
