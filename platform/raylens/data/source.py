"""A data set as a configuration names it: its location, shards and format."""

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
    """A data set whose format is known; it can be pickled."""

    uri: str
    """Canonical URI of the folder that paths are relative to."""
    format_name: str
    columns: Columns
    config_uri: str
    """The URI in the configuration, with its pattern, for messages."""
    images_hash: str = ""
    """For tables, a hash of the listing of the folder, which covers the images stored there."""

    @classmethod
    def open(cls, config: SourceConfig) -> tuple[Self, list[ObjectInfo]]:
        """Open a data set; return it with its shards in path order.

        Raises:
            ManifestError: there is no shard, or a named shard is missing.
            ConfigError: the URI is invalid.
            StorageError: the store does not respond.
        """
        # A folder may have brackets in its name.
        base, patterns = (config.uri, ()) if _is_folder(config.uri) else split_pattern(config.uri)
        store = open_store(base)
        # Manifests have folders with a name of their own, possibly within the folder of the data set.
        objects = [info for info in store.list() if not MANIFEST.search(info.path)]
        columns = Columns(config.image_column, config.caption_column)
        for name in FORMATS if config.format == "auto" else (config.format,):
            shards = _select(name, objects, patterns, alone=config.format != "auto")
            if shards:
                _check_names(store, shards)
                images_hash = _listing_hash(objects) if name == "table" else ""
                chosen = match(patterns, shards) if patterns else shards
                return cls(store.uri, name, columns, config.uri, images_hash), chosen
        raise _no_shards(config, store, objects, patterns)

    @property
    def store(self) -> Store:
        """The store that holds the shards."""
        return open_store(self.uri)

    @property
    def format(self) -> ShardFormat:
        """The format that reads the shards."""
        return FORMATS[self.format_name]

    def walk(self, shard: ObjectInfo) -> Iterator[RawSample]:
        """Yield all samples of a shard; see `ShardFormat.walk`."""
        return self.format.walk(self.store, shard, self.columns)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Rebuild a data set from the values of `as_dict`."""
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
    except (OSError, ValueError):  # too long or not a path: a pattern, or a URI whose error comes later and says more
        return False


def _check_names(store: Store, shards: Sequence[ObjectInfo]) -> None:
    for shard in shards:
        if not shard.path.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in shard.path):
            raise ManifestError(
                f"{shard.path!r} under {store.describe()} has a name that is not valid UTF-8: rename it"
            )


def _listing_hash(objects: Sequence[ObjectInfo]) -> str:
    lines = (f"{info.path}\0{info.size}\0{info.version}\n".encode(errors="surrogateescape") for info in objects)
    hasher = hashlib.sha256()
    for line in lines:
        hasher.update(line)
    return hasher.hexdigest()


def _select(name: str, objects: Sequence[ObjectInfo], patterns: Sequence[str], *, alone: bool) -> list[ObjectInfo]:
    """Select the shards of a format; ``alone`` ignores shards of other formats, which would take precedence."""
    kind = FORMATS[name]
    if alone:
        objects = [info for info in objects if kind.select([info])]
    if not patterns:
        return kind.select(objects)
    if name != "folder":
        return kind.select(named(patterns, objects))
    classes = kind.select(objects)  # patterns name classes here, not objects
    return classes if named(patterns, classes) else []


def _no_shards(config: SourceConfig, store: Store, objects: list[ObjectInfo], patterns: Sequence[str]) -> ManifestError:
    kinds = "*.tar, *.parquet, *.csv, *.tsv, *.jsonl, or folders of images named by class"
    wanted = kinds if config.format == "auto" else f"of format {config.format!r}"
    names = f" that match {', '.join(patterns[:3])}{', ...' if len(patterns) > 3 else ''}" if patterns else ""
    if not objects and "://" not in config.uri and not patterns and not Path(config.uri).exists():
        return ManifestError(f"data set {config.uri}: there is no such folder or file: check the path in data.train")
    return ManifestError(
        f"no shards ({wanted}){names} under {store.describe()}, which holds {len(objects)} objects"
        f"{f' ({objects[0].path}, ...)' if objects else ''}: check data.train, or write shards there first "
        "(`raylens data pack` does; `raylens quickstart` packs an example)"
    )
