"""Building the manifest: each shard is read once, in parallel over parts of the data set.

A part that is written is never made again: an interrupted index goes on where it was.
"""

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raylens.config import SourceConfig
from raylens.data.index_rows import shard_rows
from raylens.data.manifest import SCHEMA, SHARDS, Manifest, digest_of, fingerprint, part_name, read_parquet
from raylens.data.sample_index import places_of
from raylens.data.source import Source
from raylens.errors import ManifestError, NotFoundError
from raylens.storage import ObjectInfo, Store, open_store

__all__ = ["Mapper", "index_part", "manifest_for"]

KEPT_CAPTIONS = 100_000
"""Captions kept over the whole data set for training a tokenizer."""
PART_BYTES = 2 << 30
"""Bytes of shards in a part: a minute's work or so, and some 100,000 samples."""
PARTS_AT_LEAST = 16
"""Where there are as many shards, so that a cluster has something to share out."""

HERE_BYTES, HERE_SHARDS = 64 << 20, 256
"""A data set of at most so many bytes in at most so many shards is read by the process that asks for its manifest:
starting a process of the cluster for it takes longer than reading it."""
HERE_THREADS = 8
"""A store's answers take tens of milliseconds, during which nothing else is to be done."""

Mapper = Callable[[list[dict[str, Any]], Callable[[dict[str, Any]], pa.Table]], Iterator[pa.Table]]


def manifest_for(
    config: SourceConfig,
    cache: Store,
    run_parallel: Mapper,
    progress: Callable[[int, int], None] | None = None,
    *,
    here_bytes: int = HERE_BYTES,
) -> Manifest:
    """The manifest of a data set: read from ``cache`` if these very shards were indexed before, else built.

    Args:
        config: the data set; only read from.
        cache: where manifests are kept, by the fingerprint of the listing.
        run_parallel: applies a function to items on a cluster (see `raylens.data.stream.ray_map`).
        progress: is told shards done and shards in all.
        here_bytes: a data set of at most so many bytes is read in threads of this process.

    Raises:
        ManifestError: there is no shard, or no usable sample.
    """
    source, shards = Source.open(config)
    home = cache / fingerprint(source, shards)
    manifest = Manifest.load(home)
    if manifest is None:
        items = list(_items(source, shards, home))
        found: list[pa.Table] = []
        here = len(shards) <= HERE_SHARDS and sum(shard.size for shard in shards) <= here_bytes
        apply = _map_here if here else run_parallel
        for table in apply(items, index_part):
            found.append(table)
            if progress:
                progress(sum(one.num_rows for one in found), len(shards))
        table = pa.concat_tables(found).sort_by("shard")
        manifest = Manifest(home.uri, source, table, digest_of(table))
        if not len(manifest):
            raise ManifestError(f"{len(shards)} shards without one usable sample: {manifest.rejected_summary()}")
        _write_places(manifest, home)
        manifest.save()
    return manifest


def _map_here(items: list[dict[str, Any]], function: Callable[[dict[str, Any]], pa.Table]) -> Iterator[pa.Table]:
    with ThreadPoolExecutor(HERE_THREADS, thread_name_prefix="index") as threads:
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
    """Write the rows of some shards as a part of the manifest, and return their rows of `SHARDS`."""
    job, part = json.loads(item["text"]), int(item["part"])
    home, done = open_store(job["home"]), f"parts/{int(item['part']):06d}-shards.parquet"
    try:
        return read_parquet(home, done, None).cast(SHARDS)
    except (ManifestError, NotFoundError):
        pass  # not made yet, or half written by a machine that died: made again
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


def _write_places(manifest: Manifest, home: Store) -> None:
    """Write the records that training reads, and the texts that some of them point into."""
    columns = [name for name in SCHEMA.names if name not in ("key", "caption", "caption_hash", "width", "height")]
    with tempfile.TemporaryDirectory(prefix="raylens-index-") as folder:
        places, texts = Path(folder) / "places.bin", Path(folder) / "texts.bin"
        with places.open("wb") as to_places, texts.open("wb") as to_texts:
            for rows in manifest.parts(columns):
                records, more = places_of(rows.filter(rows["reason"].is_null()), to_texts.tell())
                to_places.write(records.tobytes())
                to_texts.write(more)
        for path in (places, texts):
            home.upload(path, path.name)
