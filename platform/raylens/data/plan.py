"""The plan: position in the training stream -> sample, as a pure function.

Positions 0, 1, 2, ... run through all epochs. In each epoch the samples are cut into *runs* of consecutive samples,
which one ranged request reads; the runs are permuted over the whole data set; each *unit* takes the next so many runs
and permutes the samples inside. Both permutations are keyed bijections (4-round Feistel networks with cycle walking;
Black and Rogaway 2002, "Ciphers with Arbitrary Finite Domains"), so nothing is stored and nothing must be replayed: a
place in the data is one integer.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from raylens.errors import CursorError

__all__ = ["Plan", "permute"]

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]
ROUNDS = 4


@dataclass(frozen=True)
class Plan:
    """The order of a data set of ``samples`` samples under a seed."""

    samples: int
    manifest: str
    """Digest of the manifest: another data set has another order."""
    seed: int
    run_length: int
    runs_per_unit: int

    VERSION = 1

    def __post_init__(self) -> None:
        if min(self.samples, self.run_length, self.runs_per_unit) < 1:
            raise CursorError(
                f"samples = {self.samples}, run_length = {self.run_length}, runs_per_unit = {self.runs_per_unit}: "
                "a plan needs at least 1 of each"
            )

    @property
    def unit_size(self) -> int:
        """Samples in a unit; the last unit of an epoch may have fewer."""
        return self.run_length * self.runs_per_unit

    @property
    def units_per_epoch(self) -> int:
        """Units that cover every sample once."""
        return -(-self.samples // self.unit_size)

    @cached_property
    def _key(self) -> int:
        text = f"raylens plan {self.VERSION} {self.manifest} {self.seed} {self.run_length} {self.runs_per_unit}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")

    def unit_span(self, unit: int) -> tuple[int, int]:
        """First position and end position of a unit, counted through all epochs."""
        epoch, number = divmod(unit, self.units_per_epoch)
        start = number * self.unit_size
        return epoch * self.samples + start, epoch * self.samples + min(start + self.unit_size, self.samples)

    def unit_of(self, position: int) -> int:
        """The unit that a position lies in."""
        epoch, within = divmod(position, self.samples)
        return epoch * self.units_per_epoch + within // self.unit_size

    def sample_at(self, positions: Ints) -> Ints:
        """Sample numbers, in manifest order, at positions ``[n]``."""
        epoch, within = np.divmod(np.asarray(positions, dtype=np.int64), self.samples)
        unit, slot = np.divmod(within, self.unit_size)
        keys = _mix(np.uint64(self._key) ^ _mix(epoch.astype(np.uint64)))
        slot = self._shuffle_inside(unit, slot, keys)
        run, offset = np.divmod(slot, self.run_length)
        run = self._shuffle_runs(unit * self.runs_per_unit + run, keys)
        # Run borders move from epoch to epoch, so that neighbours change and the short run is not always the same.
        shift = (_mix(keys + np.uint64(1)) % np.uint64(self.samples)).astype(np.int64)
        return (run * self.run_length + offset + shift) % self.samples

    def _shuffle_inside(self, unit: Ints, slot: Ints, keys: Words) -> Ints:
        last = self.units_per_epoch - 1
        size = self.samples - last * self.unit_size
        unit_keys = _mix(keys ^ _mix(unit.astype(np.uint64) + np.uint64(2)))
        return np.where(unit == last, permute(slot % size, size, unit_keys), permute(slot, self.unit_size, unit_keys))

    def _shuffle_runs(self, run: Ints, keys: Words) -> Ints:
        # The short run at the end, if any, stays last: every other slot then has exactly run_length samples.
        full = self.samples // self.run_length
        if full == 0:
            return run
        return np.where(run < full, permute(run % full, full, keys), run)


def permute(values: Ints, size: int, keys: Words) -> Ints:
    """A keyed bijection of ``0 .. size-1``, elementwise: ``values`` and ``keys`` are ``[n]``."""
    if size == 1:
        return np.zeros_like(values)
    half = max(1, -(-(size - 1).bit_length() // 2))
    result = _feistel(values.astype(np.uint64), half, keys)
    # Cycle walking: the network permutes a power of four that holds the domain; walk until back inside.
    outside = result >= np.uint64(size)
    while outside.any():
        result[outside] = _feistel(result[outside], half, keys[outside])
        outside = result >= np.uint64(size)
    return result.astype(np.int64)


def _feistel(values: Words, half: int, keys: Words) -> Words:
    mask, shift = np.uint64((1 << half) - 1), np.uint64(half)
    left, right = values >> shift, values & mask
    for step in range(ROUNDS):
        left, right = right, left ^ (_mix(right ^ _mix(keys + np.uint64(step + 16))) & mask)
    return (left << shift) | right


def _mix(words: Words) -> Words:
    """The finaliser of splitmix64: every input bit reaches every output bit (Steele, Lea and Flood 2014)."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Words = words ^ (words >> np.uint64(31))
    return mixed
