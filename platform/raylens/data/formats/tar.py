"""Webdataset tars, as img2dataset writes them: members that share a name up to the first dot make one sample."""

import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from raylens.data.formats.base import IMAGE_SUFFIXES, Columns, Kind, Pair, Place, RawSample, captions_of
from raylens.errors import DamagedError
from raylens.storage import ObjectInfo, Store

__all__ = ["TAR", "TarFormat", "spans"]

TEXT_SUFFIX, JSON_SUFFIX = "txt", "json"
BLOCK = 512
GAP = 128 * 1024
"""Bytes that are read and thrown away rather than asked around with a further request."""


class TarFormat:
    """Image, caption and metadata as neighbours in a tar.

    The caption is the ``txt`` member, or, where the ``json`` member has a list ``captions``, one of those.
    """

    name = "tar"

    def select(self, objects: Sequence[ObjectInfo]) -> list[ObjectInfo]:
        """See `ShardFormat.select`."""
        return [info for info in objects if info.path.endswith(".tar")]

    def walk(self, store: Store, shard: ObjectInfo, columns: Columns) -> Iterator[RawSample]:  # noqa: ARG002
        """See `ShardFormat.walk`; the tar is read once from front to back."""
        sample: RawSample | None = None
        try:
            with (
                store.open_file(shard.path, shard.size, shard.version) as stream,
                tarfile.open(fileobj=stream, mode="r|") as archive,
            ):
                for member in archive:
                    if not member.isfile():
                        continue
                    key, suffix = _split_name(member.name)
                    if sample is None or sample.key != key:
                        if sample is not None:
                            yield sample
                        sample = RawSample(key)
                    content = archive.extractfile(member)
                    assert content is not None  # isfile() was asked above
                    _add(sample, suffix, content.read(), member.offset_data)
                end = archive.offset
        except (tarfile.TarError, EOFError) as error:
            raise _damaged(store, shard, str(error)) from None
        # tarfile takes a header that is cut off or broken for the end, which is a block of zeros.
        whole = end + BLOCK <= shard.size and not any(store.read_range(shard.path, end, BLOCK, version=shard.version))
        if sample is not None and (whole or (sample.image is not None and sample.captions)):
            yield sample
        if not whole:
            raise _damaged(store, shard, f"no end after byte {end}")

    def read(
        self,
        store: Store,
        shard: ObjectInfo,
        columns: Columns,  # noqa: ARG002
        places: Sequence[Place],
        records: Sequence[bytes],  # noqa: ARG002
    ) -> Iterator[Pair]:
        """See `ShardFormat.read`; one ranged request for samples that lie close to each other."""
        for start, stop, group in spans(places):
            view = memoryview(store.read_range(shard.path, start, stop - start, version=shard.version))
            for place in group:
                image = view[place.offset - start : place.offset - start + place.length]
                at = place.offset + place.caption_delta - start
                yield Pair(bytes(image), _captions(bytes(view[at : at + place.caption_length]), place.kind))


def _damaged(store: Store, shard: ObjectInfo, how: str) -> DamagedError:
    return DamagedError(f"shard {shard.path} of {store.describe()} is truncated or damaged: {how}")


def _split_name(name: str) -> tuple[str, str]:
    folder, slash, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    return f"{folder}{slash}{stem}", suffix.lower()


def _add(sample: RawSample, suffix: str, data: bytes, offset: int) -> None:
    """Take in a member; image and caption may come in either order, so the caption's place is absolute until then."""
    place = sample.place
    if suffix in IMAGE_SUFFIXES and sample.image is None:
        # From now on the caption's place is counted from the image, from 0 before.
        delta = place.caption_delta - offset if sample.captions is not None else 0
        sample.image = data
        sample.place = replace(place, offset=offset, length=len(data), caption_delta=delta)
    elif suffix == TEXT_SUFFIX and place.kind is Kind.TEXT:
        _caption(sample, captions_of(data.decode("utf-8", errors="replace")), Kind.TEXT, offset, len(data))
    elif suffix == JSON_SUFFIX:
        sample.meta = _json(data)
        several = captions_of(sample.meta.get("captions"))
        if several:
            _caption(sample, several, Kind.JSON, offset, len(data))


def _caption(sample: RawSample, captions: tuple[str, ...] | None, kind: Kind, offset: int, length: int) -> None:
    delta = offset - sample.place.offset
    sample.captions = captions
    sample.place = replace(sample.place, caption_delta=delta, caption_length=length, kind=kind)


def _json(data: bytes) -> dict[str, Any]:
    try:
        meta = json.loads(data)
    except ValueError:  # metadata is a courtesy; training does not depend on it
        return {}
    return meta if isinstance(meta, dict) else {}


def _captions(data: bytes, kind: Kind) -> tuple[str, ...]:
    if kind is Kind.JSON:
        return captions_of(_json(data).get("captions")) or ("",)
    return captions_of(data.decode("utf-8", errors="replace")) or ("",)


def _start(place: Place) -> int:
    return place.offset + min(0, place.caption_delta)


def _stop(place: Place) -> int:
    return max(place.offset + place.length, place.offset + place.caption_delta + place.caption_length)


def spans(places: Sequence[Place]) -> Iterator[tuple[int, int, list[Place]]]:
    """First byte and end of each request that reading ascending places takes, and what lies in it."""
    group: list[Place] = []
    for place in places:
        if group and _start(place) - _stop(group[-1]) > GAP:
            yield _span(group)
            group = []
        group.append(place)
    if group:
        yield _span(group)


def _span(group: list[Place]) -> tuple[int, int, list[Place]]:
    return min(_start(place) for place in group), max(_stop(place) for place in group), group


TAR = TarFormat()
