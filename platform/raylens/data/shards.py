"""Webdataset tars: members that share a name up to the first dot make one sample."""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from raylens.errors import ManifestError
from raylens.storage import ObjectInfo, Store

__all__ = ["IMAGE_SUFFIXES", "Extent", "RawSample", "list_shards", "walk_shard"]

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp")
TEXT_SUFFIX, JSON_SUFFIX = "txt", "json"


@dataclass(frozen=True)
class Extent:
    """Where a member's bytes lie in its shard."""

    offset: int
    length: int


@dataclass
class RawSample:
    """One sample as it stands in a shard; parts that are missing are ``None``."""

    key: str
    image: bytes | None = None
    caption: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    image_at: Extent | None = None
    caption_at: Extent | None = None


def list_shards(store: Store) -> list[ObjectInfo]:
    """The tars of a data set, sorted by path.

    Raises:
        ManifestError: there is none.
    """
    shards = [info for info in store.list() if info.path.endswith(".tar")]
    if not shards:
        raise ManifestError(
            f"no shards (*.tar) under {store.describe()}: check data.train, or write shards there first "
            "(`raylens quickstart` packs an example)"
        )
    return shards


def walk_shard(store: Store, path: str) -> Iterator[RawSample]:
    """The samples of a shard in order, read once from front to back.

    Raises:
        ManifestError: the tar is truncated or damaged; what came before has been yielded by then.
    """
    filesystem, root = store.arrow()
    sample: RawSample | None = None
    try:
        with (
            filesystem.open_input_stream(f"{root}/{path}") as stream,
            tarfile.open(fileobj=stream, mode="r|") as archive,
        ):
            for member in archive:
                if not member.isfile():
                    continue
                key, suffix = _split_name(member.name)
                if sample is None or sample.key != key:
                    if sample is not None:
                        yield sample
                    sample = RawSample(key)
                content = archive.extractfile(member)
                assert content is not None  # isfile() was asked above
                _add(sample, suffix, content.read(), Extent(member.offset_data, member.size))
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ManifestError(f"shard {path} of {store.describe()} is truncated or damaged: {error}") from None
    if sample is not None:
        yield sample


def _split_name(name: str) -> tuple[str, str]:
    folder, slash, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    return f"{folder}{slash}{stem}", suffix.lower()


def _add(sample: RawSample, suffix: str, data: bytes, extent: Extent) -> None:
    if suffix in IMAGE_SUFFIXES:
        sample.image, sample.image_at = data, extent
    elif suffix == TEXT_SUFFIX:
        sample.caption, sample.caption_at = data.decode("utf-8", errors="replace").strip(), extent
    elif suffix == JSON_SUFFIX:
        try:
            meta = json.loads(data)
        except ValueError:  # metadata is a courtesy; training does not depend on it
            meta = {}
        sample.meta = meta if isinstance(meta, dict) else {}
