"""Building the manifest: each shard is read once, in parallel over parts of the data set.

A part that has been written is not made again: an interrupted index continues where it stopped.
"""

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raylens.config import SourceConfig
from raylens.data.formats import Kind, RawSample
from raylens.data.formats.base import characters
from raylens.data.formats.tar import sibling_stats
from raylens.data.manifest import SCHEMA, SHARDS, Manifest, digest_of, fingerprint, part_name, read_parquet
from raylens.data.sample_index import index_records
from raylens.data.source import Source
from raylens.errors import DamagedError, InputError, ManifestError, NotFoundError
from raylens.inputs import image_size
from raylens.storage import ObjectInfo, Store, open_store

__all__ = ["Mapper", "index_part", "manifest_for", "shard_rows"]

KEPT_CAPTIONS = 100_000
"""Captions of the whole data set that are kept for training a tokenizer."""
PART_BYTES = 2 << 30
"""Bytes of shards in a part: about a minute of work, and about 100,000 samples."""
PARTS_AT_LEAST = 16
"""Least number of parts, if there are as many shards, so that the work can be shared in a cluster."""

LOCAL_BYTES, LOCAL_SHARDS = 64 << 20, 256
"""Bytes and shards up to which a data set is indexed by the calling process: starting a process in the cluster takes
longer than reading it."""
LOCAL_THREADS = 8
"""Requests to a store at a time; each takes tens of milliseconds, most of it waiting."""

Mapper = Callable[[list[dict[str, Any]], Callable[[dict[str, Any]], pa.Table]], Iterator[pa.Table]]


def manifest_for(
    config: SourceConfig,
    cache: Store,
    run_parallel: Mapper,
    progress: Callable[[int, int], None] | None = None,
    *,
    local_bytes: int = LOCAL_BYTES,
) -> Manifest:
    """Return the manifest of a data set: from ``cache`` if the same shards were indexed before, else a new one.

    Args:
        config: the data set; it is only read.
        cache: the store of manifests, which are named by the fingerprint of the listing.
        run_parallel: applies a function to items on a cluster (see `raylens.data.stream.ray_map`).
        progress: called with the shards done and the total.
        local_bytes: bytes up to which a data set is read in threads of this process.

    Raises:
        ManifestError: the data set has no shard, or no usable sample.
    """
    source, shards = Source.open(config)
    home = cache / fingerprint(source, shards)
    manifest = Manifest.load(home)
    if manifest is None:
        items = list(_items(source, shards, home))
        tables: list[pa.Table] = []
        local = len(shards) <= LOCAL_SHARDS and sum(shard.size for shard in shards) <= local_bytes
        apply = _map_locally if local else run_parallel
        for table in apply(items, index_part):
            tables.append(table)
            if progress:
                progress(sum(part.num_rows for part in tables), len(shards))
        table = pa.concat_tables(tables).sort_by("shard")
        manifest = Manifest(home.uri, source, table, digest_of(table))
        if not len(manifest):
            raise ManifestError(
                f"data set {config.uri}: {len(shards)} shards have no usable sample ({manifest.rejected_summary()}): "
                "repair the shards, or check data.train"
            )
        _write_sample_index(manifest, home)
        manifest.save()
    return manifest


def _map_locally(items: list[dict[str, Any]], function: Callable[[dict[str, Any]], pa.Table]) -> Iterator[pa.Table]:
    with ThreadPoolExecutor(LOCAL_THREADS, thread_name_prefix="index") as threads:
        futures = [threads.submit(function, item) for item in items]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            for future in futures:
                future.cancel()


def _items(source: Source, shards: Sequence[ObjectInfo], home: Store) -> Iterator[dict[str, Any]]:
    """Cut the shards, in their order, into parts of about equal size."""
    target = min(PART_BYTES, sum(shard.size for shard in shards) / min(PARTS_AT_LEAST, len(shards)))
    keep = -(-KEPT_CAPTIONS // len(shards))
    part: list[tuple[int, ObjectInfo]] = []
    count = held = 0
    for number, shard in enumerate(shards):
        part.append((number, shard))
        held += shard.size
        if held >= target or number == len(shards) - 1:
            rows = [[at, info.path, info.size, info.version] for at, info in part]
            text = json.dumps({"source": source.as_dict(), "home": home.uri, "shards": rows, "keep": keep})
            yield {"part": count, "text": text}
            part, held, count = [], 0, count + 1


def index_part(item: dict[str, Any]) -> pa.Table:
    """Write the rows of some shards as a part of the manifest; return their rows of `SHARDS`."""
    job, part = json.loads(item["text"]), int(item["part"])
    home, done = open_store(job["home"]), f"parts/{int(item['part']):06d}-shards.parquet"
    try:
        return read_parquet(home, done, None).cast(SHARDS)
    except (ManifestError, NotFoundError):
        pass  # not made yet, or incomplete after a failure: make it again
    source = Source.from_dict(job["source"])
    tables, summaries = [], []
    for number, path, size, version in job["shards"]:
        rows, summary = shard_rows(source, int(number), ObjectInfo(path, size, version), int(job["keep"]))
        tables.append(rows)
        summaries.append({**summary, "part": part})
    table = pa.Table.from_pylist(summaries, schema=SHARDS)
    for name, content in ((part_name(part), pa.concat_tables(tables)), (done, table)):
        sink = pa.BufferOutputStream()
        pq.write_table(content, sink, compression="zstd")
        home.write(name, sink.getvalue().to_pybytes())
    return table


def _write_sample_index(manifest: Manifest, home: Store) -> None:
    """Write the records that training reads, and the texts that some of them refer to."""
    columns = [name for name in SCHEMA.names if name not in ("key", "caption", "caption_hash", "width", "height")]
    with tempfile.TemporaryDirectory(prefix="raylens-index-") as folder:
        index, texts = Path(folder) / "samples.bin", Path(folder) / "texts.bin"
        with index.open("wb") as to_index, texts.open("wb") as to_texts:
            for rows in manifest.parts(columns):
                records, more = index_records(rows.filter(rows["reason"].is_null()), to_texts.tell())
                to_index.write(records.tobytes())
                to_texts.write(more)
        for path in (index, texts):
            home.upload(path, path.name)


IDENTITY = ("key", "offset", "image_length", "caption_delta", "caption_extent", "kind", "image_sha256", "caption_hash")
LARGEST_FILE = 2**32 - 1
"""Largest image file, in bytes, that a record of the sample index can describe."""


def shard_rows(source: Source, number: int, shard: ObjectInfo, keep: int) -> tuple[pa.Table, dict[str, Any]]:
    """Return the rows of `SCHEMA` of one shard, and its row of `SHARDS` as plain values.

    Unusable samples have a ``reason``; ``keep`` captions are kept for training a tokenizer.

    Raises:
        ManifestError: the shard lacks the image or caption column.
    """
    rows: list[dict[str, Any]] = []
    try:
        for sample in source.walk(shard):
            rows.append(_row(number, sample))  # noqa: PERF401 (rows read before the damage are kept)
    except DamagedError as error:
        rows.append({**_empty(number, "(rest of the shard)"), "reason": _damage(str(error))})
    _keep_captions(rows, keep)
    stats = sibling_stats(source.store, shard) if source.format_name == "tar" else {}
    return pa.Table.from_pylist(rows, schema=SCHEMA), {**_summary(number, shard, rows), **stats}


def _summary(number: int, shard: ObjectInfo, rows: list[dict[str, Any]]) -> dict[str, Any]:
    usable = [row for row in rows if row["reason"] is None]
    hasher = hashlib.sha256()
    for row in usable:
        hasher.update(b"\0".join(_bytes(row[name]) for name in IDENTITY) + b"\n")
    groups = [len(list(group)) for _, group in groupby(usable, key=lambda row: row["offset"] >> 32)]
    return {
        "shard": number,
        "path": shard.path,
        "size": shard.size,
        "version": shard.version,
        "samples": len(usable),
        "rejected": len(rows) - len(usable),
        "digest": hasher.hexdigest(),
        "row_groups": groups if usable and usable[0]["kind"] == Kind.ROW else None,
        "reasons": json.dumps(Counter(row["reason"] for row in rows if row["reason"])),
    }


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _empty(shard: int, key: str) -> dict[str, Any]:
    return {**dict.fromkeys(SCHEMA.names), "shard": shard, "key": key}


def _row(shard: int, sample: RawSample) -> dict[str, Any]:
    location = sample.location
    row = {**_empty(shard, characters(sample.key)), "offset": location.offset}
    reason = sample.reason or _missing(sample)
    if reason or sample.image is None or not sample.captions:
        return {**row, "reason": reason}
    try:
        width, height = image_size(sample.image)
    except InputError as error:
        return {**row, "reason": "decompression bomb" if "limit" in str(error) else "not an image"}
    caption = sample.captions[0].encode()
    return {
        **row,
        "image_length": location.length,
        "caption_delta": location.caption_delta,
        "caption_extent": location.caption_length,
        "kind": int(location.kind),
        "record": sample.record or None,
        "image_sha256": hashlib.sha256(sample.image).digest(),
        "caption_hash": hashlib.blake2b("\0".join(sample.captions).encode(), digest_size=8).digest(),
        "caption_count": len(sample.captions),
        "caption_length": len(caption),
        "width": width,
        "height": height,
        "caption": sample.captions[0],
    }


def _damage(message: str) -> str:
    """Return the kind of damage in words that are the same for all shards, by which they are counted."""
    if ": it is compressed by " in message:
        return "compressed shard: unpack it"
    return "data after the end of a tar" if ": data follows its end " in message else "truncated or damaged shard"


def _missing(sample: RawSample) -> str | None:
    if sample.image is None:
        return "no image"
    if len(sample.image) > LARGEST_FILE:
        return "image file over 4 GiB"
    if not sample.captions:
        return "no caption" if sample.captions is None else "empty caption"
    return None


def _keep_captions(rows: list[dict[str, Any]], keep: int) -> None:
    """Remove all but ``keep`` captions, chosen by hash, so that the choice does not depend on the shard's order."""
    usable = [number for number, row in enumerate(rows) if row["reason"] is None]
    ranks = np.array([int.from_bytes(rows[number]["image_sha256"][:8], "big") for number in usable], dtype=np.uint64)
    for rank in np.argsort(ranks, kind="stable")[keep:]:
        rows[usable[int(rank)]]["caption"] = None
