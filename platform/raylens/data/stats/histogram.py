"""Distribution of a quantity over samples: exact sums, and quantiles and a histogram from logarithmic bins."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from raylens.data.bijection import Ints

__all__ = ["QUANTILE_ERROR", "Bar", "LogHistogram", "Summary"]

QUANTILE_ERROR = 2.0**-8
"""Largest relative error of quantiles; integers below 256 are exact."""

PERCENTS = (1, 5, 25, 50, 75, 95, 99)
MOST_BARS = 12

# A bin is a float64's exponent and the first 7 bits of its mantissa, from 2**-32 (no aspect ratio of two int32 is less)
# to 2**63. Bin 0 holds zero.
SHIFT = 52 - 7
BASE = ((1023 - 32) << 7) - 1
BINS = ((1023 + 63) << 7) - BASE
EDGES = np.concatenate([[0.0], ((np.arange(1, BINS + 1) + BASE) << SHIFT).view(np.float64)])

Values = Ints | NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Bar:
    """Samples whose value lies between two bounds: both included for integers, ``high`` excluded for ratios."""

    low: float
    high: float
    count: int


@dataclasses.dataclass(frozen=True)
class Summary:
    """Summary of a quantity over all usable samples; all fields but the quantiles are exact."""

    total: float
    mean: float
    least: float
    most: float
    quantiles: dict[str, float]
    """``p1``, ``p5``, ``p25``, ``p50``, ``p75``, ``p95`` and ``p99``, within `QUANTILE_ERROR` of a sample's value."""
    histogram: tuple[Bar, ...]
    """The bars; the outer ones extend to the least and the most value."""


class LogHistogram:
    """Counts of values in logarithmic bins."""

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, dtype=np.int64)
        # A Python integer for integer values: the bytes of all images may not fit a float.
        self.total: float = 0
        self.least, self.most = np.inf, -np.inf

    def add(self, values: Values) -> None:
        """Count the values of an array."""
        bits = values.astype(np.float64).view(np.int64) >> SHIFT
        self.counts += np.bincount(np.clip(bits - BASE, 0, BINS - 1), minlength=BINS)
        self.total += values.sum().item()
        self.least, self.most = min(self.least, values.min().item()), max(self.most, values.max().item())

    def summary(self, histogram: tuple[Bar, ...] | None = None) -> Summary | None:
        """Summarise the values, which are integers unless ``histogram`` gives their bars."""
        upto = np.cumsum(self.counts)
        count = int(upto[-1])
        if not count:
            return None
        ranks = [-(-percent * count // 100) for percent in PERCENTS]
        low, high = EDGES[:-1], EDGES[1:]
        middle = (np.ceil(low) + np.ceil(high) - 1) / 2 if histogram is None else (low + high) / 2
        values = np.clip(middle[np.searchsorted(upto, ranks)], self.least, self.most).tolist()
        quantiles = {f"p{percent}": value for percent, value in zip(PERCENTS, values, strict=True)}
        bars = histogram if histogram is not None else self._histogram(upto)
        return Summary(self.total, self.total / count, self.least, self.most, quantiles, bars)

    def _histogram(self, upto: Ints) -> tuple[Bar, ...]:
        """Return the finest histogram of at most `MOST_BARS` bars; the outer ones take half a percent at each end."""
        count = int(upto[-1])
        first, last = np.searchsorted(upto, [-(-count // 200), -(-199 * count // 200)]).tolist()
        step = 1
        while len(bars := self._bars(upto, first, last, step)) > MOST_BARS:
            step *= 2
        return bars

    def _bars(self, upto: Ints, first: int, last: int, step: int) -> tuple[Bar, ...]:
        # Groups begin after bin 0, at a power of two.
        starts = [max(0, 1 + group * step) for group in range((first - 1) // step, (last - 1) // step + 1)]
        wholes = np.ceil(EDGES[np.minimum([*starts, starts[-1] + step], BINS)])
        kept = [start for start, low, high in zip(starts, wholes[:-1], wholes[1:], strict=True) if low < high]
        lows = [self.least, *np.ceil(EDGES[kept[1:]]).tolist()]
        highs = [*(low - 1 for low in lows[1:]), self.most]
        counts = np.diff(np.concatenate([[0], upto[np.array(kept[1:], dtype=np.int64) - 1], upto[-1:]]))
        return tuple(Bar(*bar) for bar in zip(lows, highs, counts.tolist(), strict=True))
