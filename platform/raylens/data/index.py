"""Building the manifest: each shard is read once, in parallel over shards."""

import hashlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from raylens.data.manifest import SCHEMA, Manifest, fingerprint
from raylens.data.shards import RawSample, list_shards, walk_shard
from raylens.errors import InputError, ManifestError
from raylens.inputs.image import image_size
from raylens.storage import Store, open_store

__all__ = ["index_shard", "manifest_for"]

KEPT_CAPTIONS = 100_000
"""Captions kept over the whole data set for training a tokenizer."""

Mapper = Callable[[list[dict[str, Any]], Callable[[dict[str, Any]], pa.Table]], Iterator[pa.Table]]


def manifest_for(data: Store, cache: Store, run_parallel: Mapper) -> Manifest:
    """The manifest of a data set: read from ``cache`` if these very shards were indexed before, else built.

    Args:
        data: where the shards are; only read from.
        cache: where manifests are kept, by the fingerprint of the listing.
        run_parallel: applies a function to items on a cluster (see `raylens.data.stream.ray_map`).

    Raises:
        ManifestError: there is no shard, or no usable sample.
    """
    shards = list_shards(data)
    home = cache / fingerprint(data, shards)
    manifest = Manifest.load(home)
    if manifest is None:
        keep = math.ceil(KEPT_CAPTIONS / len(shards))
        items = [
            {"data": data.uri, "shard": number, "path": shard.path, "keep": keep} for number, shard in enumerate(shards)
        ]
        tables = list(run_parallel(items, index_shard))
        manifest = Manifest.from_rows(shards, pa.concat_tables(tables))
        manifest.save(home)
    return manifest


def index_shard(item: dict[str, Any]) -> pa.Table:
    """Rows of `SCHEMA` for one shard; what cannot be used has a ``reason``."""
    store, number = open_store(item["data"]), int(item["shard"])
    rows = []
    try:
        for sample in walk_shard(store, item["path"]):
            rows.append(_row(number, sample))  # noqa: PERF401 (rows read before the damage are kept)
    except ManifestError:
        rows.append({**_empty(number, "(rest of the shard)"), "reason": "truncated or damaged tar"})
    _keep_captions(rows, int(item["keep"]))
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _empty(shard: int, key: str) -> dict[str, Any]:
    return {**dict.fromkeys(SCHEMA.names), "shard": shard, "key": key, "image_offset": 0}


def _row(shard: int, sample: RawSample) -> dict[str, Any]:
    row = _empty(shard, sample.key)
    if sample.image is None or sample.image_at is None:
        return {**row, "reason": "no image"}
    row.update(image_offset=sample.image_at.offset, image_length=sample.image_at.length)
    if not sample.caption or sample.caption_at is None:
        return {**row, "reason": "no caption" if sample.caption is None else "empty caption"}
    try:
        width, height = image_size(sample.image)
    except InputError:
        return {**row, "reason": "not an image"}
    caption = sample.caption.encode()
    row.update(
        caption_offset=sample.caption_at.offset,
        caption_length=sample.caption_at.length,
        image_sha256=hashlib.sha256(sample.image).digest(),
        caption_hash=hashlib.blake2b(caption, digest_size=8).digest(),
        width=width,
        height=height,
        caption=sample.caption,
    )
    return row


def _keep_captions(rows: list[dict[str, Any]], keep: int) -> None:
    """Forget all but ``keep`` captions, chosen by hash, so that the choice does not follow the shard's order."""
    usable = [number for number, row in enumerate(rows) if row["reason"] is None]
    ranks = np.array([int.from_bytes(rows[number]["image_sha256"][:8], "big") for number in usable], dtype=np.uint64)
    for place in np.argsort(ranks, kind="stable")[keep:]:
        rows[usable[int(place)]]["caption"] = None
