"""The interface of a format: select the shards of a data set, walk through a shard, and read single samples."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Protocol

from raylens.storage import ObjectInfo, Store

__all__ = [
    "IMAGE_SUFFIXES",
    "Columns",
    "Kind",
    "Pair",
    "RawSample",
    "SampleLocation",
    "ShardFormat",
    "captions_of",
    "characters",
    "file_record",
]

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp")


class Kind(IntEnum):
    """How the caption of a sample is stored."""

    TEXT = 0
    """UTF-8 text in the shard, ``caption_delta`` bytes after the offset of the image."""
    JSON = 1
    """A JSON object with ``captions`` in the shard, located as `TEXT` is."""
    ROW = 2
    """In the table row that also holds the image: ``offset`` is ``row group << 32 | row in the group``."""
    FILE = 3
    """The image is an object of its own; the texts of the manifest hold its path and captions (`file_record`)."""


@dataclass(frozen=True)
class SampleLocation:
    """The location of a sample's bytes in its shard; `Kind` says what the numbers mean."""

    offset: int = 0
    length: int = 0
    """Length of the image file in bytes."""
    caption_delta: int = 0
    caption_length: int = 0
    kind: Kind = Kind.TEXT


@dataclass
class RawSample:
    """One sample as it is stored in a shard."""

    key: str
    """Unique name of the sample within its shard."""
    image: bytes | None = None
    captions: tuple[str, ...] | None = None
    """Stripped captions without blank ones; None if there is nothing that could be a caption."""
    meta: dict[str, Any] = field(default_factory=dict)
    location: SampleLocation = SampleLocation()
    record: bytes = b""
    """The record for the texts of the manifest, if the kind is `Kind.FILE`."""
    reason: str | None = None
    """Why the sample cannot be used, if the format detects it."""

    @property
    def caption(self) -> str | None:
        """The first caption; empty if all are blank, None if there is none."""
        return None if self.captions is None else (*self.captions, "")[0]


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a table; None means the usual names are searched."""

    image: str | None = None
    caption: str | None = None


@dataclass(frozen=True)
class Pair:
    """A sample that was read: the bytes of an image file, and at least one caption to choose from."""

    image: bytes
    captions: tuple[str, ...]


class ShardFormat(Protocol):
    """A format of shards; it has no state and can be pickled."""

    name: str

    def select(self, objects: Sequence[ObjectInfo]) -> list[ObjectInfo]:
        """Return the shards among the objects of a data set, in their order; none if it has another format."""
        ...

    def walk(self, store: Store, shard: ObjectInfo, columns: Columns) -> Iterator[RawSample]:
        """Yield all samples of a shard in order.

        Raises:
            DamagedError: the shard is truncated or damaged; the samples before the damage have been yielded.
            ManifestError: the shard lacks the image or caption column.
        """
        ...

    def read(
        self,
        store: Store,
        shard: ObjectInfo,
        columns: Columns,
        locations: Sequence[SampleLocation],
        records: Sequence[bytes],
    ) -> Iterator[Pair]:
        """Yield samples of a shard by their ascending locations; samples close to each other are read together.

        Args:
            store: the store of the data set.
            shard: the shard as it was indexed, with its version.
            columns: the columns that were passed to `walk`.
            locations: the locations that `walk` found.
            records: the record of each location in the texts of the manifest (empty but for `Kind.FILE`).

        Raises:
            ManifestError: an object has changed since it was indexed; the message names it.
            StorageError: the store does not respond.
        """
        ...


def captions_of(value: object) -> tuple[str, ...] | None:
    """Return the captions in a value of a shard, a text or a list of texts; None if it is neither."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list | tuple) or not all(isinstance(text, str) for text in value):
        return None
    stripped = (characters(text).strip() for text in value)
    return tuple(text for text in stripped if text)


def characters(text: str) -> str:
    """Replace lone surrogates, which names and JSON may hold but UTF-8 cannot encode, by question marks."""
    return text.encode("utf-8", errors="replace").decode()


def file_record(image: str, captions: Sequence[str]) -> bytes:
    """Return the record of a `Kind.FILE` sample for the texts of the manifest."""
    return json.dumps({"image": image, "captions": list(captions)}, ensure_ascii=False).encode()
