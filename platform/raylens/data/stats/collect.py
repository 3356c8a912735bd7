"""Statistics of a data set from its manifest, in one pass and in memory independent of the number of samples."""

import dataclasses
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raylens.data.bijection import Ints, Words
from raylens.data.stats.histogram import QUANTILE_ERROR, Bar, LogHistogram, Summary
from raylens.data.stats.sketches import DistinctContents, Duplicates, FrequentSizes, KeyCounts, Size
from raylens.errors import ManifestError

__all__ = ["ASPECTS", "SMALL_EDGE", "Stats", "collect"]

SMALL_EDGE = 224
"""Pixels; images with a shorter edge are enlarged for the usual image towers."""
ASPECTS = {
    "1:4": 1 / 4, "1:3": 1 / 3, "1:2": 1 / 2, "9:16": 9 / 16, "2:3": 2 / 3, "3:4": 3 / 4, "1:1": 1.0,
    "4:3": 4 / 3, "3:2": 3 / 2, "16:9": 16 / 9, "2:1": 2.0, "3:1": 3.0, "4:1": 4.0,
}  # fmt: skip
"""Ratios of width to height; the histogram counts each image at the nearest one."""
ASPECT_EDGES = np.sqrt(np.array(list(ASPECTS.values()))[1:] * np.array(list(ASPECTS.values()))[:-1])


@dataclasses.dataclass(frozen=True)
class Stats:
    """Statistics of a data set; those of samples are None without a usable sample."""

    samples: int
    rejected: int
    reasons: dict[str, int]
    """Number of rejected samples by reason, most frequent first."""
    shards: int
    per_shard: tuple[int, float, int] | None
    """Minimum, median and maximum of usable samples in a shard; None without shards."""
    image_bytes: Summary | None
    width: Summary | None
    height: Summary | None
    pixels: Summary | None
    aspect: Summary | None
    """Ratio of width to height of the images."""
    caption_bytes: Summary | None
    """Bytes of the first caption in UTF-8."""
    captions: Summary | None
    """Number of captions of a sample."""
    small_share: float | None
    """Share of images whose shorter edge is below `SMALL_EDGE`."""
    sizes: tuple[Size, ...]
    """The sizes that are certainly the most frequent; none if all sizes are about equally rare."""
    sizes_short: int
    """Upper bound by which the counts of ``sizes`` are too low; 0 if they are exact."""
    duplicate_images: Duplicates | None
    duplicate_captions: Duplicates | None
    quantile_error: float = QUANTILE_ERROR

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON."""
        return dataclasses.asdict(self)


def collect(tables: Iterable[pa.Table]) -> Stats:
    """Compute the statistics of the parts of a manifest, whose rows are `raylens.data.manifest.SCHEMA`.

    Raises:
        ManifestError: a sample without a ``reason`` lacks a value.
    """
    counters = _Counters()
    for table in tables:
        counters.add(table)
    return counters.stats()


class _Counters:
    """Counters of all statistics, to which parts are added."""

    def __init__(self) -> None:
        self.samples, self.small = 0, 0
        self.reasons: Counter[str] = Counter()
        self.seen, self.shards, self.sizes = KeyCounts(), KeyCounts(), FrequentSizes()
        names = ("image_bytes", "width", "height", "pixels", "aspect", "caption_bytes", "captions")
        self.bins = {name: LogHistogram() for name in names}
        self.aspects = np.zeros(len(ASPECTS), dtype=np.int64)
        self.images, self.texts = DistinctContents(), DistinctContents()

    def add(self, table: pa.Table) -> None:
        """Count the rows of a part of the manifest."""
        for pair in pc.value_counts(table["reason"].drop_null()).to_pylist():
            self.reasons[pair["values"]] += pair["counts"]
        self.seen.add(table["shard"].drop_null().unique().to_numpy().astype(np.int64))
        rows = table.filter(table["reason"].is_null())
        if not rows.num_rows:
            return
        self.samples += rows.num_rows
        self.shards.add(_integers(rows, "shard"))
        self._add_sizes(_integers(rows, "width"), _integers(rows, "height"))
        self.bins["image_bytes"].add(_integers(rows, "image_length"))
        self.bins["caption_bytes"].add(_integers(rows, "caption_length"))
        self.bins["captions"].add(_integers(rows, "caption_count"))
        self.images.offer(_hashes(rows, "image_sha256"))
        self.texts.offer(_hashes(rows, "caption_hash"))

    def _add_sizes(self, width: Ints, height: Ints) -> None:
        self.bins["width"].add(width)
        self.bins["height"].add(height)
        self.bins["pixels"].add(width * height)
        # A header may declare an edge of 0.
        aspect = width / np.maximum(height, 1)
        self.bins["aspect"].add(aspect)
        nearest = np.searchsorted(ASPECT_EDGES, aspect, side="right")
        self.aspects += np.bincount(nearest, minlength=len(ASPECTS))
        self.small += int(np.count_nonzero(np.minimum(width, height) < SMALL_EDGE))
        self.sizes.add(width << 32 | height)

    def stats(self) -> Stats:
        """Return the statistics of the parts added until now."""
        per_shard = np.concatenate([self.shards.counts, np.zeros(len(self.seen.keys) - len(self.shards.keys))])
        return Stats(
            samples=self.samples,
            rejected=self.reasons.total(),
            reasons=dict(sorted(self.reasons.items(), key=lambda item: (-item[1], item[0]))),
            shards=len(per_shard),
            per_shard=_spread(per_shard) if len(per_shard) else None,
            image_bytes=self.bins["image_bytes"].summary(),
            width=self.bins["width"].summary(),
            height=self.bins["height"].summary(),
            pixels=self.bins["pixels"].summary(),
            aspect=self.bins["aspect"].summary(self._aspect_bars()),
            caption_bytes=self.bins["caption_bytes"].summary(),
            captions=self.bins["captions"].summary(),
            small_share=self.small / self.samples if self.samples else None,
            sizes=self.sizes.top(),
            sizes_short=self.sizes.short,
            duplicate_images=self.images.duplicates(),
            duplicate_captions=self.texts.duplicates(),
        )

    def _aspect_bars(self) -> tuple[Bar, ...]:
        most = max(float(ASPECT_EDGES[-1]), self.bins["aspect"].most)
        borders = [0.0, *ASPECT_EDGES.tolist(), most]
        return tuple(Bar(*bar) for bar in zip(borders[:-1], borders[1:], self.aspects.tolist(), strict=True))


def _spread(counts: NDArray[np.float64]) -> tuple[int, float, int]:
    return int(counts.min()), float(np.median(counts)), int(counts.max())


def _integers(rows: pa.Table, name: str) -> Ints:
    return _present(rows, name).to_numpy().astype(np.int64)  # type: ignore[no-any-return]


def _hashes(rows: pa.Table, name: str) -> Words:
    """Return the first 8 bytes of each hash."""
    return np.concatenate([_words(chunk) for chunk in _present(rows, name).chunks])


def _words(chunk: pa.Array) -> Words:
    width = chunk.type.byte_width
    table = np.frombuffer(chunk.buffers()[1], dtype=np.uint8)[chunk.offset * width :][: len(chunk) * width]
    return np.ascontiguousarray(table.reshape(-1, width)[:, :8]).view("<u8").ravel()


def _present(rows: pa.Table, name: str) -> pa.ChunkedArray:
    column = rows[name]
    if column.null_count:
        raise ManifestError(f"manifest: {column.null_count} usable samples have no {name}: index the data set again")
    return column
