"""Webdataset tars, as img2dataset writes them: members that share a name up to the first dot are one sample."""

import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from raylens.data.formats.base import IMAGE_SUFFIXES, Columns, Kind, Pair, RawSample, SampleLocation, captions_of
from raylens.data.formats.files import unique_key
from raylens.errors import DamagedError, NotFoundError
from raylens.storage import ObjectInfo, Store

__all__ = ["TAR", "TarFormat", "sibling_stats", "spans"]

NAMES = ("successes", "failed_to_download", "failed_to_resize")
LARGEST = 2**48
"""Largest count that is accepted: far more samples than any shard has, and two counts fit into 64 bits."""


def sibling_stats(store: Store, shard: ObjectInfo) -> dict[str, int]:
    """Return the expected samples of a shard, and those that img2dataset could not download or resize (``failed``).

    The ``_stats.json`` beside the shard has the counts; without valid ones the result is empty.
    """
    try:
        stats = json.loads(store.read(f"{shard.path.removesuffix('.tar')}_stats.json"))
    except (NotFoundError, ValueError, RecursionError):  # optional output of the tool that wrote the shard
        return {}
    counts = [_count(stats.get(name)) for name in NAMES] if isinstance(stats, dict) else []
    whole = [count for count in counts if count is not None]
    return {"expected": whole[0], "failed": sum(whole[1:])} if len(whole) == len(NAMES) else {}


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and 0 <= value <= LARGEST else None


BLOCK = 512
WINDOW = 2**20
"""Bytes checked at each end of what follows the members: more than the padding of tars."""
MAGIC = {b"\x1f\x8b": "gzip", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


def damaged(store: Store, shard: ObjectInfo, how: str) -> DamagedError:
    """Return the error for a tar that cannot be read to its end."""
    return DamagedError(f"shard {shard.path} of {store.describe()} is truncated or damaged: {how}")


def compression(store: Store, shard: ObjectInfo) -> str | None:
    """Describe the compression of a whole tar, out of which single samples cannot be read; None if there is none."""
    start = store.read_range(shard.path, 0, min(shard.size, 8), version=shard.version)
    tool = next((tool for magic, tool in MAGIC.items() if start.startswith(magic)), None)
    return tool and f"it is compressed by {tool}: unpack it and keep the .tar"


def after_end(store: Store, shard: ObjectInfo, end: int) -> tuple[bool, str | None]:
    """Check the bytes from ``end`` on, where tarfile saw no more members: whether the tar ends, and what is wrong.

    Only zeros may follow. tarfile takes a truncated or damaged header for the end, and does not check what follows the
    first block of zeros.
    """
    left = shard.size - end
    zeros = store.read_range(shard.path, end, min(left, WINDOW), version=shard.version) if left > 0 else b""
    if left < BLOCK or any(zeros[:BLOCK]):
        return False, f"it has no end after byte {end}: write or download it again"
    if left > WINDOW:
        length = min(left - WINDOW, WINDOW)
        zeros += store.read_range(shard.path, shard.size - length, length, version=shard.version)
    joined = f"data follows its end at byte {end}: split tars that were concatenated"
    return True, joined if zeros.strip(b"\0") else None


TEXT_SUFFIX, JSON_SUFFIX = "txt", "json"
SPARSE = "stored as a sparse file: write the tar without --sparse"
"""The reason for a sparse member, whose bytes are not contiguous."""
GAP = 128 * 1024
"""Bytes between samples that are read and discarded rather than skipped by another request."""


class TarFormat:
    """Tars in which image, caption and metadata of a sample are consecutive members.

    The caption is the ``txt`` member or, if the ``json`` member has a list ``captions``, one of these.
    """

    name = "tar"

    def select(self, objects: Sequence[ObjectInfo]) -> list[ObjectInfo]:
        """Implement `ShardFormat.select`: shards are objects named ``*.tar``."""
        return [info for info in objects if info.path.endswith(".tar")]

    def walk(self, store: Store, shard: ObjectInfo, columns: Columns) -> Iterator[RawSample]:  # noqa: ARG002
        """Implement `ShardFormat.walk`: read the tar once from front to back."""
        held: RawSample | None = None
        try:
            with (
                store.open_file(shard.path, shard.size, shard.version) as stream,
                tarfile.open(fileobj=stream, mode="r|") as archive,
            ):
                for sample in _samples(archive):
                    if held is not None:
                        yield held
                    held = sample
                end = archive.offset
        except (tarfile.TarError, EOFError) as error:
            if held is not None:
                yield held
            raise damaged(store, shard, compression(store, shard) or str(error)) from None
        whole, problem = after_end(store, shard, end)
        # A sample that the damage may have cut off counts only if it is complete.
        if held is not None and (whole or (held.image is not None and held.captions)):
            yield held
        if problem is not None:
            raise damaged(store, shard, problem)

    def read(
        self,
        store: Store,
        shard: ObjectInfo,
        columns: Columns,  # noqa: ARG002
        locations: Sequence[SampleLocation],
        records: Sequence[bytes],  # noqa: ARG002
    ) -> Iterator[Pair]:
        """Implement `ShardFormat.read`: one ranged request reads samples close to each other."""
        for start, stop, group in spans(locations):
            view = memoryview(store.read_range(shard.path, start, stop - start, version=shard.version))
            for location in group:
                image = view[location.offset - start : location.offset - start + location.length]
                at = location.offset + location.caption_delta - start
                yield Pair(bytes(image), _captions(bytes(view[at : at + location.caption_length]), location.kind))


def _samples(archive: tarfile.TarFile) -> Iterator[RawSample]:
    """Yield samples of consecutive members with one name; a repeated suffix begins another sample of that name."""
    seen: dict[str, int] = {}
    sample, name, suffixes = None, "", set[str]()
    for member in archive:
        if not member.isfile():
            continue
        key, suffix = _split_name(member.name)
        if sample is None or key != name or suffix in suffixes:
            if sample is not None:
                yield sample
            sample, name, suffixes = RawSample(unique_key(key, seen)), key, set()
        suffixes.add(suffix)
        if member.issparse():
            if suffix in (*IMAGE_SUFFIXES, TEXT_SUFFIX, JSON_SUFFIX):
                sample.reason = SPARSE
            continue
        content = archive.extractfile(member)
        assert content is not None  # isfile() was checked above
        _add(sample, suffix, content.read(), member.offset_data)
    if sample is not None:
        yield sample


def _split_name(name: str) -> tuple[str, str]:
    folder, slash, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    return f"{folder}{slash}{stem}", suffix.lower()


def _add(sample: RawSample, suffix: str, data: bytes, offset: int) -> None:
    """Add a member to a sample; the caption's offset is absolute until the image is known."""
    location = sample.location
    if suffix in IMAGE_SUFFIXES and sample.image is None:
        # From now on the caption's offset is relative to the image; it was absolute before.
        delta = location.caption_delta - offset if sample.captions is not None else 0
        sample.image = data
        sample.location = replace(location, offset=offset, length=len(data), caption_delta=delta)
    elif suffix == TEXT_SUFFIX and location.kind is Kind.TEXT:
        _caption(sample, captions_of(data.decode("utf-8", errors="replace")), Kind.TEXT, offset, len(data))
    elif suffix == JSON_SUFFIX:
        sample.meta = _json(data)
        several = captions_of(sample.meta.get("captions"))
        if several:
            _caption(sample, several, Kind.JSON, offset, len(data))


def _caption(sample: RawSample, captions: tuple[str, ...] | None, kind: Kind, offset: int, length: int) -> None:
    delta = offset - sample.location.offset
    sample.captions = captions
    sample.location = replace(sample.location, caption_delta=delta, caption_length=length, kind=kind)


def _json(data: bytes) -> dict[str, Any]:
    try:
        meta = json.loads(data)
    except (ValueError, RecursionError):  # metadata is optional; training does not depend on it
        return {}
    return meta if isinstance(meta, dict) else {}


def _captions(data: bytes, kind: Kind) -> tuple[str, ...]:
    if kind is Kind.JSON:
        return captions_of(_json(data).get("captions")) or ("",)
    return captions_of(data.decode("utf-8", errors="replace")) or ("",)


def _start(location: SampleLocation) -> int:
    return location.offset + min(0, location.caption_delta)


def _stop(location: SampleLocation) -> int:
    return max(location.offset + location.length, location.offset + location.caption_delta + location.caption_length)


def spans(locations: Sequence[SampleLocation]) -> Iterator[tuple[int, int, list[SampleLocation]]]:
    """Yield first byte and end of each request for ascending locations, and the locations in it."""
    group: list[SampleLocation] = []
    for location in locations:
        if group and _start(location) - _stop(group[-1]) > GAP:
            yield _span(group)
            group = []
        group.append(location)
    if group:
        yield _span(group)


def _span(group: list[SampleLocation]) -> tuple[int, int, list[SampleLocation]]:
    return min(_start(location) for location in group), max(_stop(location) for location in group), group


TAR = TarFormat()
