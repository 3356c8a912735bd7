"""From places in shards to bytes, with one ranged request for samples that lie next to each other."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raylens.data.manifest import Manifest
from raylens.storage import Store, open_store

__all__ = ["Layout", "read_samples"]

Ints = NDArray[np.int64]
COLUMNS = ("shard", "image_offset", "image_length", "caption_offset", "caption_length")


@dataclass(frozen=True)
class Layout:
    """What a reading task needs of the manifest: plain arrays, so that processes share them without a copy."""

    paths: tuple[str, ...]
    columns: Mapping[str, Ints]

    @classmethod
    def of(cls, manifest: Manifest) -> "Layout":
        """The places of a manifest's samples, in its order."""
        return cls(tuple(shard.path for shard in manifest.shards), {name: manifest.column(name) for name in COLUMNS})


def read_samples(store_uri: str, layout: Layout, samples: Ints) -> Iterator[tuple[int, bytes, str]]:
    """The image file and the caption of each sample number, in ascending order of samples.

    Neighbours in a shard are read together.

    Raises:
        StorageError: an object is gone, shorter than the manifest says, or the store does not answer.
    """
    store = open_store(store_uri)
    ordered = np.unique(samples)
    for run in _runs(layout, ordered):
        yield from _read_run(store, layout, run)


def _runs(layout: Layout, ordered: Ints) -> Sequence[Ints]:
    """Cut ascending sample numbers where they stop being neighbours or leave their shard."""
    shard = layout.columns["shard"][ordered]
    breaks = np.flatnonzero((np.diff(ordered) != 1) | (np.diff(shard) != 0)) + 1
    return np.split(ordered, breaks)


def _read_run(store: Store, layout: Layout, run: Ints) -> Iterator[tuple[int, bytes, str]]:
    columns = {name: values[run] for name, values in layout.columns.items()}
    image_end = columns["image_offset"] + columns["image_length"]
    caption_end = columns["caption_offset"] + columns["caption_length"]
    start = int(min(columns["image_offset"].min(), columns["caption_offset"].min()))
    stop = int(max(image_end.max(), caption_end.max()))
    path = layout.paths[int(columns["shard"][0])]
    data = store.read_range(path, start, stop - start)
    view = memoryview(data)
    for place, sample in enumerate(run):
        image = view[int(columns["image_offset"][place]) - start : int(image_end[place]) - start]
        caption = view[int(columns["caption_offset"][place]) - start : int(caption_end[place]) - start]
        yield int(sample), bytes(image), str(bytes(caption), "utf-8", errors="replace").strip()
