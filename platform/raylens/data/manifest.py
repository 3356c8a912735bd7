"""The manifest: which samples there are, where their bytes lie, and what they hash to.

Immutable, one Parquet file and one JSON file; the JSON is written last, so that half a manifest does not exist.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raylens.errors import ManifestError, NotFoundError
from raylens.storage import ObjectInfo, Store

__all__ = ["SCHEMA", "Manifest", "fingerprint"]

SCHEMA = pa.schema(
    [
        ("shard", pa.int32()),  # index into the list of shards
        ("key", pa.string()),
        ("image_offset", pa.int64()),
        ("image_length", pa.int64()),
        ("caption_offset", pa.int64()),
        ("caption_length", pa.int64()),
        ("image_sha256", pa.binary(32)),
        ("caption_hash", pa.binary(8)),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("reason", pa.string()),  # why a sample is left out; null for those in use
        ("caption", pa.string()),  # of a small keyed choice of samples, to train a tokenizer on
    ]
)
IDENTITY = ("shard", "key", "image_offset", "image_length", "caption_offset", "caption_length", "image_sha256")
FORMAT = 1


@dataclass(frozen=True)
class Manifest:
    """The samples of a data set in shard order."""

    shards: tuple[ObjectInfo, ...]
    table: pa.Table
    """Rows of `SCHEMA` that are in use: ``reason`` is null."""
    rejected: pa.Table
    """Rows that are left out, with their ``reason``."""

    @classmethod
    def from_rows(cls, shards: Sequence[ObjectInfo], rows: pa.Table) -> "Manifest":
        """Sort index rows and divide them into used and rejected.

        Raises:
            ManifestError: no sample is usable.
        """
        rows = rows.select(SCHEMA.names).cast(SCHEMA)
        rows = rows.sort_by([("shard", "ascending"), ("image_offset", "ascending"), ("key", "ascending")])
        usable = pc.is_null(rows["reason"])
        manifest = cls(tuple(shards), rows.filter(usable), rows.filter(pc.invert(usable)))
        if not len(manifest):
            raise ManifestError(f"{len(shards)} shards without one usable sample: {manifest.rejected_summary()}")
        return manifest

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @cached_property
    def digest(self) -> str:
        """Identity of the content: the same samples in the same shards have it wherever they are copied to."""
        hasher = hashlib.sha256()
        for shard in self.shards:
            hasher.update(f"{shard.path}\0{shard.size}\n".encode())
        for name in (*IDENTITY, "caption_hash"):
            column = self.table[name].combine_chunks()
            if pa.types.is_string(column.type):
                hasher.update("\0".join(column.to_pylist()).encode())
            elif pa.types.is_fixed_size_binary(column.type):
                hasher.update(b"".join(column.to_pylist()))
            else:
                hasher.update(np.ascontiguousarray(column.to_numpy()).tobytes())
        return hasher.hexdigest()

    def column(self, name: str) -> NDArray[np.int64]:
        """A numeric column over the used samples, ``[N]``."""
        return np.asarray(self.table[name].to_numpy(), dtype=np.int64)

    def captions(self) -> list[str]:
        """The captions that were kept for training a tokenizer."""
        return [text for text in self.table["caption"].to_pylist() if text is not None]

    def rejected_summary(self) -> str:
        """Rejected samples by reason, most frequent first, or "none rejected"."""
        counts = self.rejected["reason"].value_counts().to_pylist()
        ordered = sorted(counts, key=lambda item: (-item["counts"], item["values"]))
        return ", ".join(f"{item['counts']} {item['values']}" for item in ordered) or "none rejected"

    def save(self, store: Store) -> None:
        """Write into a folder of its own; the JSON, which makes it exist, comes last."""
        sink = pa.BufferOutputStream()
        pq.write_table(pa.concat_tables([self.table, self.rejected]), sink, compression="zstd")
        store.write("samples.parquet", sink.getvalue().to_pybytes())
        shards = [[shard.path, shard.size, shard.version] for shard in self.shards]
        head = {"format": FORMAT, "digest": self.digest, "samples": len(self), "rejected": self.rejected.num_rows}
        store.write("manifest.json", json.dumps({**head, "shards": shards}, indent=1).encode())

    @classmethod
    def load(cls, store: Store) -> "Manifest | None":
        """Read a manifest back; ``None`` where there is none.

        Raises:
            ManifestError: it is damaged.
        """
        try:
            text = store.read("manifest.json")
        except NotFoundError:
            return None
        try:
            head = json.loads(text)
            rows = pq.read_table(pa.BufferReader(store.read("samples.parquet")))
            manifest = cls.from_rows([ObjectInfo(*shard) for shard in head["shards"]], rows)
            known = str(head["digest"])
        except (NotFoundError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
            raise ManifestError(f"manifest at {store.describe()} is damaged ({error}): delete it") from None
        if manifest.digest != known:
            raise ManifestError(f"manifest at {store.describe()} does not match its own digest: delete it")
        return manifest


def fingerprint(data: Store, shards: Sequence[ObjectInfo]) -> str:
    """Names a listing: another object, size or version gives another name, and so a new manifest."""
    lines = [data.uri, *(f"{shard.path}\0{shard.size}\0{shard.version}" for shard in shards)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:24]
