"""Images that are objects of their own, named by records: a few threads read ahead, results come in order."""

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
"""Requests at a time, and images held at most."""
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class ImageRow:
    """An image and its captions, as a table or a folder names them; with a ``reason``, what cannot be used."""

    image: str
    """Its path in the store of the data set, an absolute path of this machine, or a URI."""
    captions: tuple[str, ...] | None = None
    reason: str | None = None


def is_elsewhere(image: str) -> bool:
    """Whether a path is absolute or a URI, rather than relative to the data set."""
    return image.startswith("/") or SCHEME.match(image) is not None


def has_parent_part(image: str) -> bool:
    """Whether a path would leave a folder by ``..``."""
    return ".." in image.replace("%2e", ".").replace("%2E", ".").split("/")


def locate(store: Store, image: str) -> tuple[Store, str]:
    """The store that an image is in, and its path there.

    A URI without options has those of the data set's URI, if both have the same scheme.

    Raises:
        ConfigError: it is not a path or URI that a store can have.
    """
    scheme = SCHEME.match(image)
    if scheme is None:
        parent, slash, name = image.rpartition("/")
        return (open_store(parent or slash), name) if image.startswith("/") else (store, image)
    local = scheme.group(1).lower() == "file"
    path, _, options = (image, "", "") if local else image.partition("?")
    parent, _, name = path.rpartition("/")
    if len(parent) < scheme.end() and not local:
        raise ConfigError(f"image {path!r} names no object: write {scheme.group()}bucket/path")
    own_scheme = SCHEME.match(store.uri)
    if not local and not options and own_scheme and own_scheme.group().lower() == scheme.group().lower():
        options = store.uri.partition("?")[2]
    # Of file:///name, the parent is the root.
    folder = f"{parent}/" if len(parent) <= scheme.end() else parent
    return open_store(f"{folder}?{options}" if options else folder), unquote(name)


def walk_files(store: Store, rows: Iterable[ImageRow]) -> Iterator[RawSample]:
    """A sample for each row, in order; images are read whole.

    Raises:
        StorageError: a store does not answer.
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
    """The key, with a number behind it where ``seen``, which remembers it, has it already."""
    found = key
    while found in seen:
        seen[key] += 1
        found = f"{key}#{seen[key]}"
    seen[found] = 1
    return found


def read_files(store: Store, locations: Sequence[SampleLocation], records: Sequence[bytes]) -> Iterator[Pair]:
    """The images and captions of records, in order.

    Raises:
        ManifestError: an image is gone, or not as long as it was; names it.
        StorageError: a store does not answer.
    """
    return _in_order(lambda item: _pair(store, *item), zip(locations, records, strict=True))


def _pair(store: Store, location: SampleLocation, record: bytes) -> Pair:
    told = json.loads(record)
    home, name = locate(store, told["image"])
    try:
        image = home.read(name)
    except NotFoundError:
        raise ManifestError(f"image {name} of {home.describe()} is gone since it was indexed: {_REMEDY}") from None
    if len(image) != location.length:
        raise ManifestError(
            f"image {name} of {home.describe()} changed since it was indexed: it has {len(image)} bytes, "
            f"not {location.length}; {_REMEDY}"
        )
    return Pair(image, tuple(told["captions"]) or ("",))


_REMEDY = "put the old file back, or start a new run with another name"


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
