"""A folder of images for each class, whose name is the caption."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from raylens.data.formats.base import IMAGE_SUFFIXES, Columns, Pair, RawSample, SampleLocation, captions_of, characters
from raylens.data.formats.files import ImageRow, read_files, walk_files
from raylens.errors import ManifestError
from raylens.storage import ObjectInfo, Store

__all__ = ["FOLDER", "FolderFormat"]

MACOS = "__MACOSX"
"""The folder in which its archives keep what belongs to files, by their names."""


class FolderFormat:
    """A shard is a class: all images below one of the data set's folders. Images beside the folders have no class.

    What is hidden (``.git``, ``.ipynb_checkpoints``, ``._a.jpg``) and what macOS adds to archives is no image.
    """

    name = "folder"

    def select(self, objects: Sequence[ObjectInfo]) -> list[ObjectInfo]:
        """See `ShardFormat.select`; the version of a shard covers path, size and version of each of its images."""
        images = sorted(_images(objects), key=lambda info: (_class(info), info.path))
        return [_shard(name, list(members)) for name, members in groupby(images, key=_class)]

    def walk(self, store: Store, shard: ObjectInfo, columns: Columns) -> Iterator[RawSample]:  # noqa: ARG002
        """See `ShardFormat.walk`; images in the order of their paths, each read whole."""
        images = list(_images(store.list(shard.path)))
        if _shard(shard.path, images).version != shard.version:
            raise ManifestError(
                f"class folder {shard.path} of {store.describe()} changed while it was indexed: start again when "
                "nothing writes to it"
            )
        captions = captions_of(characters(shard.path).replace("_", " "))
        return walk_files(store, (_row(info.path, captions) for info in images))

    def read(
        self,
        store: Store,
        shard: ObjectInfo,  # noqa: ARG002
        columns: Columns,  # noqa: ARG002
        locations: Sequence[SampleLocation],
        records: Sequence[bytes],
    ) -> Iterator[Pair]:
        """See `ShardFormat.read`."""
        return read_files(store, locations, records)


def _images(objects: Iterable[ObjectInfo]) -> Iterator[ObjectInfo]:
    for info in objects:
        parts = info.path.split("/")
        hidden = any(part.startswith(".") or part == MACOS for part in parts)
        if len(parts) > 1 and not hidden and info.path.rpartition(".")[2].lower() in IMAGE_SUFFIXES:
            yield info


def _class(info: ObjectInfo) -> str:
    return info.path.partition("/")[0]


def _shard(name: str, images: list[ObjectInfo]) -> ObjectInfo:
    told = hashlib.blake2b(digest_size=8)
    for info in images:
        told.update(f"{info.path}\0{info.size}\0{info.version}\n".encode(errors="surrogateescape"))
    return ObjectInfo(name, sum(info.size for info in images), told.hexdigest())


def _row(path: str, captions: tuple[str, ...] | None) -> ImageRow:
    shown = characters(path)
    return ImageRow(shown, captions, None if shown == path else "image path is not UTF-8")


FOLDER = FolderFormat()
