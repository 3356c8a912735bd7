"""What the manifest says of one shard: a row a sample, and a summary."""

import hashlib
import json
from collections import Counter
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa

from raylens.data.formats import Kind, RawSample
from raylens.data.formats.base import characters
from raylens.data.formats.img2dataset import sibling_stats
from raylens.data.manifest import SCHEMA
from raylens.data.source import Source
from raylens.errors import DamagedError, InputError
from raylens.inputs.image import image_size
from raylens.storage import ObjectInfo

__all__ = ["shard_rows"]

IDENTITY = ("key", "offset", "image_length", "caption_delta", "caption_extent", "kind", "image_sha256", "caption_hash")
LARGEST_FILE = 2**32 - 1
"""Bytes of an image file that a record of places can hold."""


def shard_rows(source: Source, number: int, shard: ObjectInfo, keep: int) -> tuple[pa.Table, dict[str, Any]]:
    """Rows of `SCHEMA` for one shard, and its row of `SHARDS` as plain values.

    What cannot be used has a ``reason``; ``keep`` captions are kept for training a tokenizer.

    Raises:
        ManifestError: the shard has not the columns that are asked for.
    """
    rows: list[dict[str, Any]] = []
    try:
        for sample in source.walk(shard):
            rows.append(_row(number, sample))  # noqa: PERF401 (rows read before the damage are kept)
    except DamagedError as error:
        rows.append({**_empty(number, "(rest of the shard)"), "reason": _damage(str(error))})
    _keep_captions(rows, keep)
    told = sibling_stats(source.store, shard) if source.format_name == "tar" else {}
    return pa.Table.from_pylist(rows, schema=SCHEMA), {**_summary(number, shard, rows), **told}


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
        "runs": groups if usable and usable[0]["kind"] == Kind.ROW else None,
        "reasons": json.dumps(Counter(row["reason"] for row in rows if row["reason"])),
    }


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _empty(shard: int, key: str) -> dict[str, Any]:
    return {**dict.fromkeys(SCHEMA.names), "shard": shard, "key": key}


def _row(shard: int, sample: RawSample) -> dict[str, Any]:
    place = sample.place
    row = {**_empty(shard, characters(sample.key)), "offset": place.offset}
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
        "image_length": place.length,
        "caption_delta": place.caption_delta,
        "caption_extent": place.caption_length,
        "kind": int(place.kind),
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
    """The kind of damage, in words that are the same for all shards: they are counted by it."""
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
    """Forget all but ``keep`` captions, chosen by hash, so that the choice does not follow the shard's order."""
    usable = [number for number, row in enumerate(rows) if row["reason"] is None]
    ranks = np.array([int.from_bytes(rows[number]["image_sha256"][:8], "big") for number in usable], dtype=np.uint64)
    for place in np.argsort(ranks, kind="stable")[keep:]:
        rows[usable[int(place)]]["caption"] = None
