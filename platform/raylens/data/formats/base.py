"""What every format of a data set can do: name its shards, walk one from front to back, and read single samples."""

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
    """How a sample's caption is found."""

    TEXT = 0
    """In the shard, ``caption_delta`` bytes after the image's offset: UTF-8 text."""
    JSON = 1
    """In the shard, as TEXT: a JSON object with ``captions``."""
    ROW = 2
    """In the same row of a table that holds the image too: ``offset`` is ``row group << 32 | row in the group``."""
    FILE = 3
    """The image is an object of its own; the manifest's texts hold its path and captions (`file_record`)."""


@dataclass(frozen=True)
class SampleLocation:
    """Where a sample's bytes lie in its shard, in the words of its format (see `Kind`)."""

    offset: int = 0
    length: int = 0
    """Bytes of the image file."""
    caption_delta: int = 0
    caption_length: int = 0
    kind: Kind = Kind.TEXT


@dataclass
class RawSample:
    """One sample as it stands in a shard."""

    key: str
    """Its name within the shard; any two samples of a shard have different ones."""
    image: bytes | None = None
    captions: tuple[str, ...] | None = None
    """Stripped, blank ones left out; ``None`` where there is nothing that could be a caption."""
    meta: dict[str, Any] = field(default_factory=dict)
    location: SampleLocation = SampleLocation()
    record: bytes = b""
    """For ``Kind.FILE``: what the manifest's texts shall hold."""
    reason: str | None = None
    """Why the sample cannot be used, where the format knows."""

    @property
    def caption(self) -> str | None:
        """The first caption; empty where all are blank."""
        return None if self.captions is None else (*self.captions, "")[0]


@dataclass(frozen=True)
class Columns:
    """Names of a table's columns; ``None`` is found by the usual names."""

    image: str | None = None
    caption: str | None = None


@dataclass(frozen=True)
class Pair:
    """What reading gives: an image file's bytes and the captions to choose from (at least one)."""

    image: bytes
    captions: tuple[str, ...]


class ShardFormat(Protocol):
    """One format. Stateless; travels by pickle."""

    name: str

    def select(self, objects: Sequence[ObjectInfo]) -> list[ObjectInfo]:
        """The shards among the objects of a data set, in their order; empty where it is not of this format."""
        ...

    def walk(self, store: Store, shard: ObjectInfo, columns: Columns) -> Iterator[RawSample]:
        """All samples of a shard in order.

        Raises:
            DamagedError: the shard is truncated or damaged; what came before has been yielded by then.
            ManifestError: it has not the columns that are asked for.
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
        """Samples of a shard by their locations, which ascend; neighbours are read together.

        Args:
            store: where the data set is.
            shard: the shard as it was indexed, with its version.
            columns: as given to `walk`.
            locations: what `walk` gave.
            records: of each location, what the manifest's texts hold (empty but for ``Kind.FILE``).

        Raises:
            ManifestError: an object is not what was indexed; names it.
            StorageError: the store does not answer.
        """
        ...


def captions_of(value: object) -> tuple[str, ...] | None:
    """Captions as a shard may hold them: a text, or a list of texts; ``None`` where it is neither."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list | tuple) or not all(isinstance(text, str) for text in value):
        return None
    stripped = (characters(text).strip() for text in value)
    return tuple(text for text in stripped if text)


def characters(text: str) -> str:
    """The same text, with a question mark for each half of a character: names and JSON may hold some, files may not."""
    return text.encode("utf-8", errors="replace").decode()


def file_record(image: str, captions: Sequence[str]) -> bytes:
    """What the manifest's texts hold of a ``Kind.FILE`` sample."""
    return json.dumps({"image": image, "captions": list(captions)}, ensure_ascii=False).encode()
