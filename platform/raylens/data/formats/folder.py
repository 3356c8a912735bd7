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
"""The folder in which archives made by macOS keep attributes of files, under the files' names."""


class FolderFormat:
    """A shard is a class: all images below one of the data set's folders; images beside the folders have no class.

    Hidden files (``.git``, ``.ipynb_checkpoints``, ``._a.jpg``) and those that macOS adds to archives are ignored.
    """

    name = "folder"

    def select(self, objects: Sequence[ObjectInfo]) -> list[ObjectInfo]:
        """Implement `ShardFormat.select`: the version of a shard covers path, size and version of each image."""
        images = sorted(_images(objects), key=lambda info: (_class(info), info.path))
        return [_shard(name, list(members)) for name, members in groupby(images, key=_class)]

    def walk(self, store: Store, shard: ObjectInfo, columns: Columns) -> Iterator[RawSample]:  # noqa: ARG002
        """Implement `ShardFormat.walk`: read images whole, in the order of their paths."""
        images = list(_images(store.list(shard.path)))
        if _shard(shard.path, images).version != shard.version:
            raise ManifestError(
                f"class folder {shard.path} of {store.describe()} changed while it was indexed: index again when "
                "no process writes to it"
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
        """Implement `ShardFormat.read`: read the image objects that the records name."""
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
    hasher = hashlib.blake2b(digest_size=8)
    for info in images:
        hasher.update(f"{info.path}\0{info.size}\0{info.version}\n".encode(errors="surrogateescape"))
    return ObjectInfo(name, sum(info.size for info in images), hasher.hexdigest())


def _row(path: str, captions: tuple[str, ...] | None) -> ImageRow:
    shown = characters(path)
    return ImageRow(shown, captions, None if shown == path else "image path is not UTF-8")


FOLDER = FolderFormat()
