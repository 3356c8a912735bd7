"""The manifest: the samples of a data set, the location of their bytes, and their hashes.

A manifest is immutable. Its folder holds

    manifest.json     counts, digest and settings of the data set; written last: without it there is no manifest
    shards.parquet    a row for each shard: path, size, version, counts, digest
    parts/*.parquet   a row for each sample, with several shards in a file (`SCHEMA`)
    samples.bin       a fixed-width record for each usable sample (`raylens.data.sample_index`), which training reads
    texts.bin         paths and captions of samples whose image is an object of its own
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raylens.data.bijection import Ints
from raylens.data.source import Source
from raylens.errors import ManifestError, NotFoundError
from raylens.storage import ObjectInfo, Store, open_store

__all__ = ["FORMAT", "SCHEMA", "SHARDS", "Manifest", "fingerprint", "part_name"]

LARGE_ROW_GROUP = 4096
"""Samples above which a row group is called large; a task holds the pixels of at least one row group."""
FORMAT = 4
SCHEMA = pa.schema(
    [
        ("shard", pa.int32()),  # index into the list of shards
        ("key", pa.string()),
        ("offset", pa.int64()),  # of the image; see raylens.data.formats.base.SampleLocation
        ("image_length", pa.int64()),
        ("caption_delta", pa.int32()),
        ("caption_extent", pa.int32()),  # bytes of the caption text or JSON
        ("kind", pa.int8()),
        ("record", pa.binary()),
        ("image_sha256", pa.binary(32)),
        ("caption_hash", pa.binary(8)),
        ("caption_count", pa.int32()),
        ("caption_length", pa.int32()),  # bytes of the first caption
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("reason", pa.string()),  # why a sample is left out; null for those in use
        ("caption", pa.string()),  # kept for a small keyed choice of samples, to train a tokenizer
    ]
)
SHARDS = pa.schema(
    [
        ("shard", pa.int32()),
        ("part", pa.int32()),
        ("path", pa.string()),
        ("size", pa.int64()),
        ("version", pa.string()),
        ("samples", pa.int64()),
        ("rejected", pa.int64()),
        ("expected", pa.int64()),  # from the sibling _stats.json of img2dataset, if there is one
        ("failed", pa.int64()),  # samples that img2dataset could not download or resize
        ("digest", pa.string()),
        ("row_groups", pa.list_(pa.int32())),  # usable samples in each row group, for formats that have them
        ("reasons", pa.string()),  # rejected samples: a JSON object from reason to count
    ]
)


@dataclass(frozen=True)
class Manifest:
    """The samples of a data set, in the order of its shards."""

    home: str
    """URI of the folder that holds the manifest."""
    source: Source
    table: pa.Table
    """The shards, as rows of `SHARDS`."""
    digest: str
    """Identity of the content: the same samples in the same shards have the same digest wherever they are copied."""

    def __len__(self) -> int:
        return int(self.starts[-1])

    @cached_property
    def starts(self) -> Ints:
        """Number of the first usable sample of each shard, then the number of samples, ``[S + 1]``."""
        return np.concatenate([[0], np.cumsum(self.table["samples"].to_numpy())]).astype(np.int64)

    @cached_property
    def shards(self) -> tuple[ObjectInfo, ...]:
        """The shards, with size and version as indexed."""
        columns = (self.table[name].to_pylist() for name in ("path", "size", "version"))
        return tuple(ObjectInfo(*row) for row in zip(*columns, strict=True))

    @property
    def rejected(self) -> int:
        """Number of samples that are left out."""
        return int(np.sum(self.table["rejected"].to_numpy()))

    @cached_property
    def reasons(self) -> dict[str, int]:
        """Number of rejected samples by reason, most frequent first."""
        counts: dict[str, int] = {}
        for text in self.table["reasons"].to_pylist():
            for reason, count in json.loads(text).items():
                counts[reason] = counts.get(reason, 0) + count
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    def rejected_summary(self) -> str:
        """Describe the rejected samples by reason; "none rejected" if there are none."""
        return ", ".join(f"{count} {reason}" for reason, count in self.reasons.items()) or "none rejected"

    def row_group_bounds(self) -> Ints | None:
        """Return the first sample of each row group, then the number of samples, ``[R + 1]``; else None."""
        lengths = [rows for groups in self.table["row_groups"].to_pylist() for rows in groups or () if rows]
        return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64) if lengths else None

    def warnings(self) -> list[str]:
        """Return warnings to show before training, a phrase each."""
        bounds = self.row_group_bounds()
        largest = 0 if bounds is None else int(np.diff(bounds).max())
        wide = f"a row group has {largest:,} samples and is read whole: write smaller ones, or use `raylens data pack`"
        return [*self._shortfalls(), *([wide] if largest > LARGE_ROW_GROUP else [])]

    def _shortfalls(self) -> list[str]:
        """List shards with fewer samples than the ``_stats.json`` of img2dataset beside them says."""
        rows = zip(*(self.table[name].to_pylist() for name in ("path", "samples", "rejected", "expected")), strict=True)
        return [
            f"{path} has {samples + rejected} samples, its _stats.json says {expected}"
            for path, samples, rejected, expected in rows
            if expected is not None and samples + rejected < expected
        ]

    def parts(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield the rows of `SCHEMA`, usable or not, a part at a time.

        Raises:
            ManifestError: a part is damaged.
        """
        store = open_store(self.home)
        for part in range(int(self.table["part"].to_numpy().max()) + 1):
            yield read_parquet(store, part_name(part), columns)

    def rows(self, samples: Sequence[int], columns: Sequence[str]) -> list[dict[str, object]]:
        """Return columns of usable samples, in the order of the given sample numbers."""
        wanted = np.asarray(samples, dtype=np.int64)
        shard = np.searchsorted(self.starts, wanted, side="right") - 1
        part = self.table["part"].to_numpy()[shard]
        row_of: dict[int, dict[str, object]] = {}
        for number in np.unique(part):
            rows = read_parquet(open_store(self.home), part_name(int(number)), [*columns, "reason"])
            usable = rows.filter(rows["reason"].is_null()).select(list(columns))
            first = int(self.starts[int(np.flatnonzero(self.table["part"].to_numpy() == number)[0])])
            here = wanted[part == number]
            row_of.update(zip(here.tolist(), usable.take(here - first).to_pylist(), strict=True))
        return [row_of[int(sample)] for sample in wanted]

    def captions(self) -> list[str]:
        """Return the captions that were kept for training a tokenizer."""
        return [text for rows in self.parts(["caption"]) for text in rows["caption"].drop_null().to_pylist()]

    def save(self) -> None:
        """Write the shards, then the JSON file with which the manifest begins to exist."""
        store, sink = open_store(self.home), pa.BufferOutputStream()
        pq.write_table(self.table, sink, compression="zstd")
        store.write("shards.parquet", sink.getvalue().to_pybytes())
        head = {
            "format": FORMAT,
            "digest": self.digest,
            "samples": len(self),
            "rejected": self.rejected,
            "shards": self.table.num_rows,
            "bytes": sum(shard.size for shard in self.shards),
            "source": self.source.as_dict(),
        }
        store.write("manifest.json", json.dumps(head, indent=1).encode())

    @classmethod
    def load(cls, home: Store) -> "Manifest | None":
        """Read a manifest; return None if there is none.

        Raises:
            ManifestError: the manifest is damaged.
        """
        try:
            text = home.read("manifest.json")
        except NotFoundError:
            return None
        try:
            head = json.loads(text)
            table = read_parquet(home, "shards.parquet", None).cast(SHARDS)
            manifest = cls(home.uri, Source.from_dict(head["source"]), table, str(head["digest"]))
        except (NotFoundError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
            raise ManifestError(
                f"manifest at {home.describe()} is damaged ({error}): delete that folder and index again"
            ) from None
        if digest_of(table) != manifest.digest or len(manifest) != head.get("samples"):
            raise ManifestError(
                f"manifest at {home.describe()} does not match its own digest: delete that folder and index again"
            )
        return manifest


def part_name(part: int) -> str:
    """Return the path of a part within the manifest."""
    return f"parts/{part:06d}.parquet"


def read_parquet(store: Store, name: str, columns: Sequence[str] | None) -> pa.Table:
    """Read a Parquet file of a manifest.

    Raises:
        ManifestError: the file is damaged or missing.
    """
    try:
        data = pa.BufferReader(store.read(name))
        return pq.read_table(data, columns=list(columns) if columns is not None else None)
    except (NotFoundError, pa.ArrowException, OSError) as error:
        raise ManifestError(
            f"manifest at {store.describe()}: {name} is damaged ({error}): delete that folder and index again"
        ) from None


def digest_of(shards: pa.Table) -> str:
    """Compute the digest of a manifest from its rows of `SHARDS`."""
    hasher = hashlib.sha256()
    for path, samples, digest in zip(
        *(shards[name].to_pylist() for name in ("path", "samples", "digest")), strict=True
    ):
        hasher.update(f"{path}\0{samples}\0{digest}\n".encode())
    return hasher.hexdigest()


def fingerprint(source: Source, shards: Sequence[ObjectInfo]) -> str:
    """Name a listing of shards: another object, size or version gives another name, hence a new manifest."""
    lines = [str(FORMAT), source.uri, source.format_name, str(source.columns), source.images_hash]
    lines += [f"{shard.path}\0{shard.size}\0{shard.version}" for shard in shards]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:24]
