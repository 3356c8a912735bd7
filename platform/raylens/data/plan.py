"""The plan: position in the training stream -> data set, epoch and sample, as a pure function.

One data set is followed in its own order. Several are mixed by *cycles*: in each cycle every data set has a fixed
number of places, its share, and a keyed bijection deals the places out. A place in the mixture is still one integer,
and each data set still goes through its own epochs without losing or repeating a sample.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from raylens.data.bijection import Ints, Words, key_of, mix, permute
from raylens.data.order import VERSION, Order
from raylens.errors import ConfigError

__all__ = ["Located", "Plan", "shares_of", "step_hashes"]

MOST_PLACES = 1 << 14


@dataclass(frozen=True)
class Located:
    """What stands at positions, each ``[n]``."""

    source: Ints
    """Index of the data set."""
    epoch: Ints
    """Of that data set."""
    sample: Ints
    """In that data set, in manifest order."""


@dataclass(frozen=True)
class Plan:
    """The order of one or several data sets under a seed."""

    orders: tuple[Order, ...]
    shares: tuple[int, ...] = (1,)
    """Places of each data set in a cycle of the mixture."""
    seed: int = 0

    VERSION = VERSION

    @cached_property
    def offsets(self) -> Ints:
        """Number of the first sample of each data set, counted over all of them, ``[D + 1]``."""
        return np.concatenate([[0], np.cumsum([order.samples for order in self.orders])])

    @property
    def samples(self) -> int:
        """Samples of all data sets together."""
        return int(self.offsets[-1])

    @property
    def cycle(self) -> int:
        """Positions of a cycle of the mixture."""
        return sum(self.shares)

    def unit_span(self, unit: int) -> tuple[int, int]:
        """First and end position of what one task makes: a unit of the data set, or a cycle of the mixture."""
        if len(self.orders) == 1:
            return self.orders[0].unit_span(unit)
        return unit * self.cycle, (unit + 1) * self.cycle

    def unit_of(self, position: int) -> int:
        """The unit that a position lies in."""
        return self.orders[0].unit_of(position) if len(self.orders) == 1 else position // self.cycle

    def locate(self, positions: Ints) -> Located:
        """Data set, epoch and sample at positions ``[n]``."""
        source, within = self._deal(np.asarray(positions, dtype=np.int64))
        epoch, sample = np.empty_like(within), np.empty_like(within)
        for number, order in enumerate(self.orders):
            here = source == number
            epoch[here] = within[here] // order.epoch_size
            sample[here] = order.sample_at(within[here])
        return Located(source, epoch, sample)

    def _deal(self, positions: Ints) -> tuple[Ints, Ints]:
        """Each position's data set, and the position in that data set's own order."""
        if len(self.orders) == 1:
            return np.zeros_like(positions), positions
        cycle, slot = np.divmod(positions, self.cycle)
        base = np.uint64(key_of(f"raylens mixture {VERSION} {self.seed} {self.shares}"))
        place = permute(slot, self.cycle, mix(base ^ mix(cycle.astype(np.uint64))))
        ends = np.cumsum(self.shares)
        source = np.searchsorted(ends, place, side="right")
        shares = np.asarray(self.shares, dtype=np.int64)
        # A bijection between a cycle's places and each data set's next positions: no counting, so no state.
        return source, cycle * shares[source] + place - (ends - shares)[source]

    def ids(self, located: Located) -> Ints:
        """Sample numbers counted over all data sets, ``[n]``."""
        return self.offsets[located.source] + located.sample

    def draw_keys(self, located: Located) -> Words:
        """Keys of the random choices at positions, ``[n]``; a data set's do not depend on what it is mixed with."""
        keys = np.empty(len(located.source), dtype=np.uint64)
        for number, order in enumerate(self.orders):
            here = located.source == number
            keys[here] = order.draw_keys(located.epoch[here], located.sample[here])
        return keys


def shares_of(weights: Sequence[float], places: int) -> tuple[int, ...]:
    """Weights to whole places of a cycle of at least ``places``, by largest remainders; each gets one at least.

    Raises:
        ConfigError: a weight is so small that a cycle, which one task makes at once, would be too long.
    """
    parts = np.asarray(weights, dtype=np.float64) / sum(weights)
    wanted, places = places, max(places, int(np.ceil(4.0 / parts.min())))
    if places > max(wanted, MOST_PLACES):
        raise ConfigError(
            f"data.train: weight {min(weights):g} is less than {4 / MOST_PLACES:.1e} of all weights: raise it, "
            "or leave that data set out"
        )
    exact = parts * places
    shares = np.maximum(1, np.floor(exact)).astype(np.int64)
    missing = places - int(shares.sum())
    shares[np.argsort(shares - exact, kind="stable")[: max(0, missing)]] += 1
    return tuple(int(share) for share in shares)


def step_hashes(ids: Ints, epochs: Ints, steps: int) -> Words:
    """A hash of the samples of each step that does not depend on their order: ``[steps x B]`` to ``[steps]``.

    Sums modulo 2**64 of a mix of sample number and epoch, so that workers' sums add up to the global batch's.
    """
    words = mix(mix(ids.astype(np.uint64)) ^ epochs.astype(np.uint64))
    sums: Words = words.reshape(steps, -1).sum(axis=1, dtype=np.uint64)
    return sums
