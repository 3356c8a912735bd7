"""The order of one data set: position -> sample, as a pure function.

Positions 0, 1, 2, ... run through all epochs. The samples are cut into *runs* of consecutive samples, which one ranged
request reads; the runs are permuted over the whole data set; each *unit* takes the next so many runs and permutes the
samples inside. Both permutations are keyed bijections, so nothing is stored and nothing must be replayed.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np

from raylens.data.bijection import Ints, Words, key_of, mix, permute
from raylens.errors import CursorError

__all__ = ["VERSION", "EvenOrder", "GivenOrder", "Order"]

VERSION = 2


@dataclass(frozen=True)
class Order(ABC):
    """What both kinds of order share."""

    samples: int
    manifest: str
    """Digest of the manifest: another data set has another order."""
    seed: int
    run_length: int
    runs_per_unit: int
    epoch_size: int
    """Positions of an epoch: all samples, or fewer where a partial batch is dropped."""

    def __post_init__(self) -> None:
        if min(self.samples, self.run_length, self.runs_per_unit, self.epoch_size) < 1 or (
            self.epoch_size > self.samples
        ):
            raise CursorError(
                f"samples = {self.samples}, run_length = {self.run_length}, runs_per_unit = {self.runs_per_unit}, "
                f"epoch_size = {self.epoch_size}: an order needs at least 1 of each, and an epoch fits the samples"
            )

    @property
    @abstractmethod
    def units_per_epoch(self) -> int:
        """Units of an epoch; with given runs, the last ones may be empty."""

    @abstractmethod
    def unit_span(self, unit: int) -> tuple[int, int]:
        """First position and end position of a unit, counted through all epochs."""

    @abstractmethod
    def unit_of(self, position: int) -> int:
        """The unit that a position lies in."""

    @abstractmethod
    def sample_at(self, positions: Ints) -> Ints:
        """Sample numbers, in manifest order, at positions ``[n]``."""

    def draw_keys(self, epochs: Ints, samples: Ints) -> Words:
        """Keys of the random choices for samples in epochs, ``[n]``: crop and caption follow from them."""
        base = np.uint64(key_of(f"raylens draws {VERSION} {self.manifest} {self.seed}"))
        return mix(mix(base ^ mix(epochs.astype(np.uint64))) ^ samples.astype(np.uint64))

    @cached_property
    def _key(self) -> int:
        return key_of(f"raylens order {VERSION} {self.manifest} {self.seed} {self.run_length} {self.runs_per_unit}")

    def _epoch_keys(self, epochs: Ints) -> Words:
        return mix(np.uint64(self._key) ^ mix(epochs.astype(np.uint64)))


@dataclass(frozen=True)
class EvenOrder(Order):
    """Runs of ``run_length`` samples wherever they fall: O(1) memory at any size."""

    @property
    def unit_size(self) -> int:
        """Samples in a unit; the last unit of an epoch may have fewer."""
        return self.run_length * self.runs_per_unit

    @property
    def units_per_epoch(self) -> int:
        """Units that cover every position of an epoch once."""
        return -(-self.epoch_size // self.unit_size)

    def unit_span(self, unit: int) -> tuple[int, int]:
        """See `Order.unit_span`."""
        epoch, number = divmod(unit, self.units_per_epoch)
        first, start = epoch * self.epoch_size, number * self.unit_size
        return first + start, first + min(start + self.unit_size, self.epoch_size)

    def unit_of(self, position: int) -> int:
        """See `Order.unit_of`."""
        epoch, within = divmod(position, self.epoch_size)
        return epoch * self.units_per_epoch + within // self.unit_size

    def sample_at(self, positions: Ints) -> Ints:
        """See `Order.sample_at`."""
        epoch, within = np.divmod(np.asarray(positions, dtype=np.int64), self.epoch_size)
        unit, slot = np.divmod(within, self.unit_size)
        keys = self._epoch_keys(epoch)
        slot = self._shuffle_inside(unit, slot, keys)
        run, offset = np.divmod(slot, self.run_length)
        run = self._shuffle_runs(unit * self.runs_per_unit + run, keys)
        # Run borders move from epoch to epoch, so that neighbours change and the short run is not always the same.
        shift = (mix(keys + np.uint64(1)) % np.uint64(self.samples)).astype(np.int64)
        return (run * self.run_length + offset + shift) % self.samples

    def _shuffle_inside(self, unit: Ints, slot: Ints, keys: Words) -> Ints:
        last = -(-self.samples // self.unit_size) - 1
        size = self.samples - last * self.unit_size
        unit_keys = mix(keys ^ mix(unit.astype(np.uint64) + np.uint64(2)))
        return np.where(unit == last, permute(slot % size, size, unit_keys), permute(slot, self.unit_size, unit_keys))

    def _shuffle_runs(self, run: Ints, keys: Words) -> Ints:
        # The short run at the end, if any, stays last: every other slot then has exactly run_length samples.
        full = self.samples // self.run_length
        if full == 0:
            return run
        return np.where(run < full, permute(run % full, full, keys), run)


@dataclass(frozen=True)
class GivenOrder(Order):
    """Runs whose borders the files give (row groups): memory of a few bytes a run."""

    bounds: Ints = field(compare=False, repr=False)
    """First sample of each run, and the number of samples at the end, ``[R + 1]``; the manifest's digest names it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bounds[0] != 0 or self.bounds[-1] != self.samples or (np.diff(self.bounds) < 1).any():
            raise CursorError(f"runs of {self.samples} samples must ascend from 0 to {self.samples} without a gap")

    @property
    def units_per_epoch(self) -> int:
        """See `Order.units_per_epoch`."""
        return -(-(len(self.bounds) - 1) // self.runs_per_unit)

    def unit_span(self, unit: int) -> tuple[int, int]:
        """See `Order.unit_span`."""
        epoch, number = divmod(unit, self.units_per_epoch)
        starts = _epoch(self, epoch).unit_starts
        first, size = epoch * self.epoch_size, self.epoch_size
        return first + min(int(starts[number]), size), first + min(int(starts[number + 1]), size)

    def unit_of(self, position: int) -> int:
        """See `Order.unit_of`."""
        epoch, within = divmod(position, self.epoch_size)
        starts = _epoch(self, epoch).unit_starts
        return epoch * self.units_per_epoch + int(np.searchsorted(starts, within, side="right")) - 1

    def sample_at(self, positions: Ints) -> Ints:
        """See `Order.sample_at`."""
        epoch, within = np.divmod(np.asarray(positions, dtype=np.int64), self.epoch_size)
        result = np.empty_like(within)
        for number in np.unique(epoch):
            here = epoch == number
            result[here] = self._in_epoch(int(number), within[here])
        return result

    def _in_epoch(self, epoch: int, within: Ints) -> Ints:
        table = _epoch(self, epoch)
        unit = np.searchsorted(table.unit_starts, within, side="right") - 1
        slot = within.copy()
        for number in np.unique(unit):
            here = unit == number
            start, stop = int(table.unit_starts[number]), int(table.unit_starts[number + 1])
            keys = np.full(int(here.sum()), table.key + int(number), dtype=np.uint64)
            slot[here] = start + permute(within[here] - start, stop - start, mix(mix(keys)))
        place = np.searchsorted(table.run_starts, slot, side="right") - 1
        return self.bounds[table.runs[place]] + slot - table.run_starts[place]


@dataclass(frozen=True)
class _Epoch:
    key: int
    runs: Ints
    """The runs in the order of the epoch, ``[R]``."""
    run_starts: Ints
    """Where in the epoch each of them begins, and the end, ``[R + 1]``."""
    unit_starts: Ints


@lru_cache(maxsize=8)
def _epoch(order: GivenOrder, epoch: int) -> _Epoch:
    count = len(order.bounds) - 1
    keys = order._epoch_keys(np.full(count, epoch, dtype=np.int64))
    runs = permute(np.arange(count), count, keys)
    lengths = np.diff(order.bounds)[runs]
    run_starts = np.concatenate([[0], np.cumsum(lengths)])
    unit_starts = np.append(run_starts[: -1 : order.runs_per_unit], run_starts[-1])
    return _Epoch(int(keys[0] >> np.uint64(8)), runs, run_starts, unit_starts)
