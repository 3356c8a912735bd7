"""What a manifest says of a data set, counted in one pass and in memory that does not grow with its samples."""

import dataclasses
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raylens.data.bijection import Ints, Words, key_of, mix
from raylens.errors import ManifestError

__all__ = ["ASPECTS", "QUANTILE_ERROR", "SMALL_EDGE", "Bar", "Duplicates", "Size", "Stats", "Summary", "collect"]

SMALL_EDGE = 224
"""Pixels; images whose shorter edge is below are enlarged for the usual image towers."""
ASPECTS = {
    "1:4": 1 / 4, "1:3": 1 / 3, "1:2": 1 / 2, "9:16": 9 / 16, "2:3": 2 / 3, "3:4": 3 / 4, "1:1": 1.0,
    "4:3": 4 / 3, "3:2": 3 / 2, "16:9": 16 / 9, "2:1": 2.0, "3:1": 3.0, "4:1": 4.0,
}  # fmt: skip
"""Width to height: the ratios that the histogram counts at, each image at the nearest."""
QUANTILE_ERROR = 2.0**-8
"""Relative error of quantiles at most; integers below 256 are exact."""

PERCENTS = (1, 5, 25, 50, 75, 95, 99)
MOST_BARS = 12
TOP_SIZES = 10
KEPT_SIZES = 1 << 16
KEPT_HASHES = 2_000_000

# Bins are a float64's exponent and the first 7 bits of its mantissa, from 2**-32 (no aspect ratio of two int32 is less)
# to 2**63. Bin 0 holds zero.
SHIFT = 52 - 7
BASE = ((1023 - 32) << 7) - 1
BINS = ((1023 + 63) << 7) - BASE
EDGES = np.concatenate([[0.0], ((np.arange(1, BINS + 1) + BASE) << SHIFT).view(np.float64)])
ASPECT_EDGES = np.sqrt(np.array(list(ASPECTS.values()))[1:] * np.array(list(ASPECTS.values()))[:-1])

Values = Ints | NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Bar:
    """Samples whose value lies between two bounds: both included for integers, ``high`` excluded for ratios."""

    low: float
    high: float
    count: int


@dataclasses.dataclass(frozen=True)
class Summary:
    """One quantity over all usable samples; all but the quantiles is exact."""

    total: float
    mean: float
    least: float
    most: float
    quantiles: dict[str, float]
    """``p1``, ``p5``, ``p25``, ``p50``, ``p75``, ``p95`` and ``p99``, within `QUANTILE_ERROR` of a sample's value."""
    histogram: tuple[Bar, ...]
    """The outer bars reach to the least and the most; of an aspect ratio there is one for each of `ASPECTS`."""


@dataclasses.dataclass(frozen=True)
class Size:
    """Width and height in pixels, and how many images have them."""

    width: int
    height: int
    count: int


@dataclasses.dataclass(frozen=True)
class Duplicates:
    """Samples beyond the first of each content, counted among contents whose hash falls in a keyed fraction."""

    share: float
    """Of all samples; an estimate unless ``fraction`` is 1."""
    error: float
    """Standard error of ``share``; 0 where it is exact."""
    fraction: float
    samples: int
    """Samples in the fraction."""
    distinct: int
    """Contents in the fraction."""
    most_copies: int
    """Samples of the most frequent content in the fraction."""


@dataclasses.dataclass(frozen=True)
class Stats:
    """A data set in numbers. What describes samples is ``None`` where there is no usable one."""

    samples: int
    rejected: int
    reasons: dict[str, int]
    """Of the rejected, most frequent first."""
    shards: int
    per_shard: tuple[int, float, int] | None
    """Least, median and most usable samples of a shard; ``None`` without shards."""
    image_bytes: Summary | None
    width: Summary | None
    height: Summary | None
    pixels: Summary | None
    aspect: Summary | None
    """Width to height."""
    caption_bytes: Summary | None
    """UTF-8, of the first caption."""
    captions: Summary | None
    """Of a sample."""
    small_share: float | None
    """Of images whose shorter edge is below `SMALL_EDGE`."""
    sizes: tuple[Size, ...]
    """The most frequent; those that certainly are, so none where all sizes are about as rare."""
    sizes_short: int
    """How far at most the counts of ``sizes`` are too low; 0 where they are exact."""
    duplicate_images: Duplicates | None
    duplicate_captions: Duplicates | None
    quantile_error: float = QUANTILE_ERROR

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)


def collect(tables: Iterable[pa.Table]) -> Stats:
    """Count the parts of a manifest, rows as in `raylens.data.manifest.SCHEMA`.

    Raises:
        ManifestError: a sample without a ``reason`` lacks a value.
    """
    found = _Found()
    for table in tables:
        found.add(table)
    return found.stats()


class _Bins:
    """Counts in logarithmic bins."""

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, dtype=np.int64)
        # Python's integers where values are: bytes of all images may not fit a float.
        self.total: float = 0
        self.least, self.most = np.inf, -np.inf

    def add(self, values: Values) -> None:
        bits = values.astype(np.float64).view(np.int64) >> SHIFT
        self.counts += np.bincount(np.clip(bits - BASE, 0, BINS - 1), minlength=BINS)
        self.total += values.sum().item()
        self.least, self.most = min(self.least, values.min().item()), max(self.most, values.max().item())

    def summary(self, histogram: tuple[Bar, ...] | None = None) -> Summary | None:
        """Of integers, unless there is a histogram already."""
        upto = np.cumsum(self.counts)
        count = int(upto[-1])
        if not count:
            return None
        ranks = [-(-percent * count // 100) for percent in PERCENTS]
        low, high = EDGES[:-1], EDGES[1:]
        middle = (np.ceil(low) + np.ceil(high) - 1) / 2 if histogram is None else (low + high) / 2
        found = np.clip(middle[np.searchsorted(upto, ranks)], self.least, self.most).tolist()
        quantiles = {f"p{percent}": value for percent, value in zip(PERCENTS, found, strict=True)}
        bars = histogram if histogram is not None else self._histogram(upto)
        return Summary(self.total, self.total / count, self.least, self.most, quantiles, bars)

    def _histogram(self, upto: Ints) -> tuple[Bar, ...]:
        """The finest that has few enough bars; half a percent at either end goes into the outer ones."""
        count = int(upto[-1])
        first, last = np.searchsorted(upto, [-(-count // 200), -(-199 * count // 200)]).tolist()
        step = 1
        while len(bars := self._bars(upto, first, last, step)) > MOST_BARS:
            step *= 2
        return bars

    def _bars(self, upto: Ints, first: int, last: int, step: int) -> tuple[Bar, ...]:
        # Groups begin behind bin 0, at a power of two.
        starts = [max(0, 1 + group * step) for group in range((first - 1) // step, (last - 1) // step + 1)]
        wholes = np.ceil(EDGES[np.minimum([*starts, starts[-1] + step], BINS)])
        kept = [start for start, low, high in zip(starts, wholes[:-1], wholes[1:], strict=True) if low < high]
        lows = [self.least, *np.ceil(EDGES[kept[1:]]).tolist()]
        highs = [*(low - 1 for low in lows[1:]), self.most]
        counts = np.diff(np.concatenate([[0], upto[np.array(kept[1:], dtype=np.int64) - 1], upto[-1:]]))
        return tuple(Bar(*bar) for bar in zip(lows, highs, counts.tolist(), strict=True))


class _Tally:
    """How often each of some keys comes."""

    def __init__(self, kind: type[np.int64] | type[np.uint64] = np.int64) -> None:
        self.keys: NDArray[Any] = np.zeros(0, dtype=kind)
        self.counts: Ints = np.zeros(0, dtype=np.int64)

    def add(self, keys: NDArray[Any]) -> None:
        more, counts = np.unique(keys, return_counts=True)
        self.keys, places = np.unique(np.concatenate([self.keys, more]), return_inverse=True)
        weights = np.concatenate([self.counts, counts])
        self.counts = np.bincount(places, weights, minlength=len(self.keys)).astype(np.int64)

    def keep(self, chosen: NDArray[np.bool_]) -> None:
        self.keys, self.counts = self.keys[chosen], self.counts[chosen]


class _Sizes(_Tally):
    """The frequent sizes (Misra and Gries 1982; merged as in Agarwal et al. 2013, "Mergeable summaries")."""

    short = 0

    def add(self, keys: NDArray[Any]) -> None:
        super().add(keys)
        if len(self.keys) > KEPT_SIZES:
            cut = int(np.partition(self.counts, -KEPT_SIZES - 1)[-KEPT_SIZES - 1])
            self.counts -= cut
            self.keep(self.counts > 0)
            self.short += cut

    def top(self) -> tuple[Size, ...]:
        order = np.lexsort([self.keys, -self.counts])[:TOP_SIZES]
        # A size that was dropped may come as often as this.
        order = order[self.counts[order] > self.short]
        pairs = zip(self.keys[order].tolist(), self.counts[order].tolist(), strict=True)
        return tuple(Size(key >> 32, key & 0xFFFFFFFF, count) for key, count in pairs)


class _Contents(_Tally):
    """Hashes in a keyed fraction, which is halved whenever there are too many."""

    def __init__(self) -> None:
        super().__init__(np.uint64)
        self.halvings, self.samples = 0, 0
        self._new: list[Words] = []

    def offer(self, hashes: Words) -> None:
        self.samples += len(hashes)
        # Keyed: data sets are cut and dealt out by hash too, and then a plain prefix would be all or nothing.
        mixed = mix(hashes ^ np.uint64(key_of("raylens.data.stats")))
        self._new.append(mixed[self._inside(mixed)])
        # Merging sorts all that is kept, so it waits until it is worth it.
        if sum(map(len, self._new)) > KEPT_HASHES // 4:
            self._merge()

    def duplicates(self) -> Duplicates | None:
        """From all samples and the distinct ones of the fraction: how often one content comes has no bearing on the
        error, as it would if samples of the fraction stood for the others."""
        if not self.samples:
            return None
        self._merge()
        scale, distinct = 1 << self.halvings, len(self.keys)
        return Duplicates(
            share=max(0.0, 1 - distinct * scale / self.samples),
            error=float(np.sqrt(distinct * (1 - 1 / scale)) * scale / self.samples),
            fraction=1 / scale,
            samples=int(self.counts.sum()),
            distinct=distinct,
            most_copies=int(self.counts.max(initial=0)),
        )

    def _inside(self, mixed: Words) -> NDArray[np.bool_]:
        inside: NDArray[np.bool_] = mixed <= np.uint64((1 << 64 - self.halvings) - 1)
        return inside

    def _merge(self) -> None:
        self.add(np.concatenate([*self._new, self.keys[:0]]))
        self._new = []
        while len(self.keys) > KEPT_HASHES:
            self.halvings += 1
            self.keep(self._inside(self.keys))


class _Found:
    """All that is counted."""

    def __init__(self) -> None:
        self.samples, self.small = 0, 0
        self.reasons: Counter[str] = Counter()
        self.seen, self.shards, self.sizes = _Tally(), _Tally(), _Sizes()
        names = ("image_bytes", "width", "height", "pixels", "aspect", "caption_bytes", "captions")
        self.bins = {name: _Bins() for name in names}
        self.aspects = np.zeros(len(ASPECTS), dtype=np.int64)
        self.images, self.texts = _Contents(), _Contents()

    def add(self, table: pa.Table) -> None:
        """A part of the manifest."""
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
        """What was found until now."""
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
    """The first 8 bytes of each hash."""
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
