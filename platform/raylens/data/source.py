"""A data set as it is named in a configuration: where, which shards, which format."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from raylens.config import SourceConfig
from raylens.data.formats import FORMATS, Columns, RawSample, ShardFormat
from raylens.data.patterns import match, named, split_pattern
from raylens.errors import ManifestError
from raylens.storage import ObjectInfo, Store, open_store

__all__ = ["Source"]

MANIFEST = re.compile(r"(^|/)manifests/[0-9a-f]{24}/")


@dataclass(frozen=True)
class Source:
    """A data set, opened: its format is known. Travels by pickle."""

    uri: str
    """Of the folder that its paths are relative to; canonical."""
    format_name: str
    columns: Columns
    config_uri: str
    """What the configuration says, with its pattern; for people."""
    images_hash: str = ""
    """For tables, a hash of the listing of all other objects: the images, as far as they lie in the same folder."""

    @classmethod
    def open(cls, config: SourceConfig) -> tuple[Self, list[ObjectInfo]]:
        """A data set and its shards, in path order.

        Raises:
            ManifestError: there is no shard, or a shard that is named is missing.
            ConfigError: the URI is not one.
            StorageError: the store does not answer.
        """
        # A folder may have brackets in its name.
        base, patterns = (config.uri, ()) if _is_folder(config.uri) else split_pattern(config.uri)
        store = open_store(base)
        # Manifests are kept in folders of a name that nobody else gives; they may lie within the data set's.
        objects = [info for info in store.list() if not MANIFEST.search(info.path)]
        columns = Columns(config.image_column, config.caption_column)
        for name in FORMATS if config.format == "auto" else (config.format,):
            shards = _select(name, objects, patterns, alone=config.format != "auto")
            if shards:
                _check_names(store, shards)
                images_hash = _listing_hash(objects) if name == "table" else ""
                chosen = match(patterns, shards) if patterns else shards
                return cls(store.uri, name, columns, config.uri, images_hash), chosen
        raise _nothing(config, store, objects, patterns)

    @property
    def store(self) -> Store:
        """Where the shards are."""
        return open_store(self.uri)

    @property
    def format(self) -> ShardFormat:
        """How they are read."""
        return FORMATS[self.format_name]

    def walk(self, shard: ObjectInfo) -> Iterator[RawSample]:
        """All samples of a shard; see `ShardFormat.walk`."""
        return self.format.walk(self.store, shard, self.columns)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """What `as_dict` gave."""
        return cls(
            values["uri"],
            values["format_name"],
            Columns(**values["columns"]),
            values["config_uri"],
            values["images_hash"],
        )


def _is_folder(uri: str) -> bool:
    try:
        return Path(uri).is_dir()
    except (OSError, ValueError):  # too long for a path, or not one: a pattern, or an error that tells more
        return False


def _check_names(store: Store, shards: Sequence[ObjectInfo]) -> None:
    for shard in shards:
        if not shard.path.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in shard.path):
            raise ManifestError(f"{shard.path!r} under {store.describe()} has a name that is not UTF-8: rename it")


def _listing_hash(objects: Sequence[ObjectInfo]) -> str:
    lines = (f"{info.path}\0{info.size}\0{info.version}\n".encode(errors="surrogateescape") for info in objects)
    hasher = hashlib.sha256()
    for line in lines:
        hasher.update(line)
    return hasher.hexdigest()


def _select(name: str, objects: Sequence[ObjectInfo], patterns: Sequence[str], *, alone: bool) -> list[ObjectInfo]:
    """The shards of a format; ``alone`` if it was asked for, so that shards of other formats do not stand before it."""
    kind = FORMATS[name]
    if alone:
        objects = [info for info in objects if kind.select([info])]
    if not patterns:
        return kind.select(objects)
    if name != "folder":
        return kind.select(named(patterns, objects))
    classes = kind.select(objects)  # the patterns name these, not objects
    return classes if named(patterns, classes) else []


def _nothing(config: SourceConfig, store: Store, objects: list[ObjectInfo], patterns: Sequence[str]) -> ManifestError:
    kinds = "*.tar, *.parquet, *.csv, *.tsv, *.jsonl, or folders of images named by class"
    wanted = kinds if config.format == "auto" else f"of format {config.format!r}"
    names = f" that match {', '.join(patterns[:3])}{', ...' if len(patterns) > 3 else ''}" if patterns else ""
    if not objects and "://" not in config.uri and not patterns and not Path(config.uri).exists():
        return ManifestError(f"data set {config.uri}: there is no such folder or file: check the path")
    return ManifestError(
        f"no shards ({wanted}){names} under {store.describe()}, which holds {len(objects)} objects"
        f"{f' ({objects[0].path}, ...)' if objects else ''}: check data.train, or write shards there first "
        "(`raylens data pack` does; `raylens quickstart` packs an example)"
    )
