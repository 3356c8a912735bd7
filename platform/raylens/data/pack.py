"""Writing webdataset shards, from samples in memory (`pack`) or from a data set of any format (`repack`)."""

import io
import itertools
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, UnidentifiedImageError

from raylens.data.index import Mapper
from raylens.data.manifest import Manifest
from raylens.data.reader import open_reader
from raylens.errors import AlreadyExistsError, InputError, ManifestError
from raylens.inputs import decode_image
from raylens.storage import Store, open_store

__all__ = ["NewSample", "Repacked", "check_only_shards", "pack", "repack", "shard_name", "write_shard"]


@dataclass(frozen=True)
class NewSample:
    """A sample to be written; ``suffix`` is that of the image file: png, jpg or webp."""

    key: str
    image: bytes
    suffix: str
    caption: str
    meta: Mapping[str, Any] = field(default_factory=dict)


def pack(samples: Iterable[NewSample], store: Store, *, per_shard: int = 1000) -> list[str]:
    """Write samples as shards ``000000.tar``, ``000001.tar``, ... and return their names.

    Equal samples give equal bytes, so packing them again changes nothing.

    Raises:
        ManifestError: there is no sample, or the store holds other shards.
    """
    names: list[str] = []
    iterator = iter(samples)
    while chunk := list(itertools.islice(iterator, per_shard)):
        names.append(shard_name(len(names)))
        write_shard(store, names[-1], chunk)
    if not names:
        raise ManifestError("there are no samples to pack: give at least one")
    check_only_shards(store, names)
    return names


def shard_name(number: int) -> str:
    """Return the name of a shard, given its number."""
    return f"{number:06d}.tar"


def check_only_shards(store: Store, names: Sequence[str]) -> None:
    """Refuse a folder that holds shards of another data set.

    Raises:
        ManifestError: there is a shard whose name is not in ``names``.
    """
    own = set(names)
    others = [info.path for info in store.list() if info.path.endswith(".tar") and info.path not in own]
    if others:
        raise ManifestError(f"{store.describe()} holds other shards ({others[0]}): choose an empty folder")


def write_shard(store: Store, name: str, samples: Iterable[NewSample]) -> int:
    """Write a shard, unless an equal one exists, and return its size in bytes.

    Raises:
        ManifestError: a different shard of that name exists.
    """
    data = _tar(samples)
    try:
        store.write_once(name, data)
    except AlreadyExistsError:
        if store.read(name) != data:
            raise ManifestError(f"{store.describe()} holds a different {name}: choose an empty folder") from None
    return len(data)


def _tar(samples: Iterable[NewSample]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for sample in samples:
            meta = json.dumps(dict(sample.meta), sort_keys=True).encode()
            for suffix, data in ((sample.suffix, sample.image), ("txt", sample.caption.encode()), ("json", meta)):
                member = tarfile.TarInfo(f"{sample.key}.{suffix}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return sink.getvalue()


SUFFIXES = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp"}
"""Suffixes by Pillow's format names; MPO is a JPEG with further images after it, as many phones write."""
JPEG_QUALITY = 95
RESULT = pa.schema([("samples", pa.int64()), ("bytes", pa.int64()), ("left_out", pa.int64())])


@dataclass(frozen=True)
class Repacked:
    """The number and size of the shards that were written."""

    shards: int
    samples: int
    bytes: int
    left_out: int
    """Samples that could not be decoded for scaling."""


def repack(
    manifest: Manifest,
    out: Store,
    run_parallel: Mapper,
    *,
    per_shard: int,
    shorter_edge: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Repacked:
    """Write the usable samples of a data set, in their order, as shards ``000000.tar``, ``000001.tar``, ...

    Args:
        manifest: the data set.
        out: an empty folder, or one that an interrupted call with the same arguments has begun to fill.
        run_parallel: applies a function to items on a cluster (see `raylens.data.stream.ray_map`).
        per_shard: number of samples in a shard.
        shorter_edge: scale larger images down to this, in pixels, and write them as JPEG.
        progress: called with the shards done and the total.

    Raises:
        ManifestError: the folder holds other shards.
        StorageError: the store does not answer.
    """
    count = -(-len(manifest) // per_shard)
    check_only_shards(out, [shard_name(number) for number in range(count)])
    job = {"home": manifest.home, "out": out.uri, "per_shard": per_shard, "edge": shorter_edge}
    text = json.dumps(job)
    tables = []
    for table in run_parallel([{"number": number, "text": text} for number in range(count)], _repack_shard):
        tables.append(table)
        if progress:
            progress(len(tables), count)
    samples, size, left_out = (int(np.sum(pa.concat_tables(tables)[name].to_numpy())) for name in RESULT.names)
    return Repacked(count, samples, size, left_out)


def _repack_shard(item: dict[str, Any]) -> pa.Table:
    job, number = json.loads(item["text"]), int(item["number"])
    samples = list(_samples(job["home"], number, int(job["per_shard"]), job["edge"]))
    kept = [sample for sample in samples if sample is not None]
    size = write_shard(open_store(job["out"]), shard_name(number), kept)
    row = {"samples": len(kept), "bytes": size, "left_out": len(samples) - len(kept)}
    return pa.Table.from_pylist([row], schema=RESULT)


def _samples(home: str, number: int, per_shard: int, edge: int | None) -> Iterator[NewSample | None]:
    reader = open_reader(home)
    first, stop = number * per_shard, min((number + 1) * per_shard, len(reader.manifest))
    keys = reader.keys(list(range(first, stop)))
    for request in reader.requests(np.arange(first, stop)):
        for sample, pair in reader.read(request):
            scaled = _scaled(pair.image, edge)
            if scaled is None:
                yield None
                continue
            image, suffix = scaled
            captions = {"captions": list(pair.captions)} if len(pair.captions) > 1 else {}
            meta = {"source": reader.shard_path(sample), "source_key": keys[sample - first], **captions}
            yield NewSample(f"{sample:09d}", image, suffix, pair.captions[0], meta)


def _scaled(data: bytes, edge: int | None) -> tuple[bytes, str] | None:
    """Return an image file and its suffix, re-encoded only if it must be scaled or shards cannot hold its format."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            suffix, small = SUFFIXES.get(image.format or ""), edge is None or min(image.size) <= edge
        if suffix and small:
            return data, suffix
        pixels = decode_image(data, least=edge or 0)
    except (InputError, UnidentifiedImageError, OSError):
        return None
    sink = io.BytesIO()
    if edge is None or small:
        pixels.save(sink, "PNG")
        return sink.getvalue(), "png"
    scale = edge / min(pixels.size)
    size = (max(edge, round(pixels.width * scale)), max(edge, round(pixels.height * scale)))
    pixels.resize(size, Image.Resampling.BICUBIC).save(sink, "JPEG", quality=JPEG_QUALITY)
    return sink.getvalue(), "jpg"
