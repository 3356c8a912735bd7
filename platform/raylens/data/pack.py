"""Writing shards: image, caption and metadata of each sample as neighbours in a tar."""

import io
import itertools
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from raylens.errors import AlreadyExistsError, ManifestError
from raylens.storage import Store

__all__ = ["NewSample", "pack", "refuse_strangers", "shard_name", "write_shard"]


@dataclass(frozen=True)
class NewSample:
    """A sample to be written. ``suffix`` is the image file's: png, jpg, webp."""

    key: str
    image: bytes
    suffix: str
    caption: str
    meta: Mapping[str, Any] = field(default_factory=dict)


def pack(samples: Iterable[NewSample], store: Store, *, per_shard: int = 1000) -> list[str]:
    """Write samples as shards ``000000.tar``, ``000001.tar``, ... and return their names.

    Equal samples give equal bytes, so packing again changes nothing.

    Raises:
        ManifestError: there is no sample, or other shards are there already.
    """
    names: list[str] = []
    iterator = iter(samples)
    while chunk := list(itertools.islice(iterator, per_shard)):
        names.append(shard_name(len(names)))
        write_shard(store, names[-1], chunk)
    if not names:
        raise ManifestError("nothing to pack: no samples")
    refuse_strangers(store, names)
    return names


def shard_name(number: int) -> str:
    """The name of a shard by its number."""
    return f"{number:06d}.tar"


def refuse_strangers(store: Store, names: Sequence[str]) -> None:
    """Shards that are not of one data set must not lie in its folder.

    Raises:
        ManifestError: there are others than ``names``.
    """
    own = set(names)
    strangers = [info.path for info in store.list() if info.path.endswith(".tar") and info.path not in own]
    if strangers:
        raise ManifestError(f"{store.describe()} holds other shards too ({strangers[0]}): choose an empty folder")


def write_shard(store: Store, name: str, samples: Iterable[NewSample]) -> int:
    """Write a shard, unless this very one is there, and return its size in bytes.

    Raises:
        ManifestError: another shard of that name is there.
    """
    data = _tar(samples)
    try:
        store.write_once(name, data)
    except AlreadyExistsError:
        if store.read(name) != data:
            raise ManifestError(f"{store.describe()} has another {name}: choose an empty folder") from None
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
