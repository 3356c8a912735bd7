"""Counts of values in bounded memory: the frequent image sizes, and the duplicates among contents."""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raylens.data.bijection import Ints, Words, key_of, mix

__all__ = ["DistinctContents", "Duplicates", "FrequentSizes", "KeyCounts", "Size"]

TOP_SIZES = 10
KEPT_SIZES = 1 << 16
KEPT_HASHES = 2_000_000


@dataclasses.dataclass(frozen=True)
class Size:
    """Width and height in pixels, and the number of images of this size."""

    width: int
    height: int
    count: int


@dataclasses.dataclass(frozen=True)
class Duplicates:
    """Samples beyond the first of each content, estimated from contents whose hash lies in a keyed fraction."""

    share: float
    """Share of all samples; an estimate unless ``fraction`` is 1."""
    error: float
    """Standard error of ``share``; 0 if it is exact."""
    fraction: float
    samples: int
    """Number of samples in the fraction."""
    distinct: int
    """Number of distinct contents in the fraction."""
    most_copies: int
    """Number of samples of the most frequent content in the fraction."""


class KeyCounts:
    """The number of occurrences of each key."""

    def __init__(self, kind: type[np.int64] | type[np.uint64] = np.int64) -> None:
        self.keys: NDArray[Any] = np.zeros(0, dtype=kind)
        self.counts: Ints = np.zeros(0, dtype=np.int64)

    def add(self, keys: NDArray[Any]) -> None:
        """Count the occurrences of keys."""
        more, counts = np.unique(keys, return_counts=True)
        self.keys, slots = np.unique(np.concatenate([self.keys, more]), return_inverse=True)
        weights = np.concatenate([self.counts, counts])
        self.counts = np.bincount(slots, weights, minlength=len(self.keys)).astype(np.int64)

    def keep(self, chosen: NDArray[np.bool_]) -> None:
        """Drop all keys but the chosen ones."""
        self.keys, self.counts = self.keys[chosen], self.counts[chosen]


class FrequentSizes(KeyCounts):
    """The frequent sizes (Misra and Gries 1982; merged as in Agarwal et al. 2013, "Mergeable summaries")."""

    short = 0

    def add(self, keys: NDArray[Any]) -> None:
        """Count sizes, encoded as ``width << 32 | height``; if there are too many sizes, drop the rare ones."""
        super().add(keys)
        if len(self.keys) > KEPT_SIZES:
            cut = int(np.partition(self.counts, -KEPT_SIZES - 1)[-KEPT_SIZES - 1])
            self.counts -= cut
            self.keep(self.counts > 0)
            self.short += cut

    def top(self) -> tuple[Size, ...]:
        """Return the sizes that are certainly the most frequent."""
        order = np.lexsort([self.keys, -self.counts])[:TOP_SIZES]
        # A size that was dropped may occur as often as this.
        order = order[self.counts[order] > self.short]
        pairs = zip(self.keys[order].tolist(), self.counts[order].tolist(), strict=True)
        return tuple(Size(key >> 32, key & 0xFFFFFFFF, count) for key, count in pairs)


class DistinctContents(KeyCounts):
    """The distinct hashes in a keyed fraction, which is halved whenever there are too many."""

    def __init__(self) -> None:
        super().__init__(np.uint64)
        self.halvings, self.samples = 0, 0
        self._new: list[Words] = []

    def offer(self, hashes: Words) -> None:
        """Count the hashes that lie in the fraction."""
        self.samples += len(hashes)
        # Keyed: data sets may themselves be selected by hash, and then a plain prefix would hold all or none of them.
        mixed = mix(hashes ^ np.uint64(key_of("raylens.data.stats.collect")))
        self._new.append(mixed[self._inside(mixed)])
        # Merging sorts all kept hashes, so it waits until enough are new.
        if sum(map(len, self._new)) > KEPT_HASHES // 4:
            self._merge()

    def duplicates(self) -> Duplicates | None:
        """Estimate the duplicates from all samples and the distinct contents in the fraction.

        The error does not depend on how often a content occurs, as it would if samples of the fraction were
        extrapolated. Return None if there is no sample.
        """
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
