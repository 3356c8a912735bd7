"""The plan: position in the training stream -> data set, epoch and sample, as a pure function.

One data set is followed in its own order. Several are mixed by *cycles*: in each cycle every data set has a fixed
number of slots, its share, and a keyed bijection deals the slots out. A place in the mixture is still one integer,
and each data set still goes through its own epochs without losing or repeating a sample.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raylens.config import RunConfig
from raylens.data.bijection import Ints, Words, key_of, mix, permute
from raylens.data.manifest import Manifest
from raylens.data.order import VERSION, FixedChunkOrder, Order, RowGroupOrder
from raylens.errors import ConfigError
from raylens.inputs import CropDraw

__all__ = ["Draws", "Located", "Plan", "build_plan", "shares_of", "step_hashes"]


@dataclass(frozen=True)
class Draws:
    """Crop and caption, from the sample's key: the same whoever makes them."""

    crop: CropDraw
    caption: float

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> "Draws":
        """From four uniform draws."""
        return cls(CropDraw(*values[:3].tolist()), float(values[3]))

    def choose(self, captions: int) -> int:
        """Which of so many captions is taken."""
        return int(self.caption * captions)

    def box(self, width: int, height: int, min_scale: float) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the crop in pixels; at ``min_scale`` 1 that of the centre."""
        if min_scale < 1.0:
            return self.crop.box(width, height, min_scale)
        return CropDraw(0.0, 0.5, 0.5).box(width, height, 1.0)


MAX_CYCLE = 1 << 14


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

    def block_span(self, block: int) -> tuple[int, int]:
        """First and end position of what one task makes: a block of the data set, or a cycle of the mixture."""
        if len(self.orders) == 1:
            return self.orders[0].block_span(block)
        return block * self.cycle, (block + 1) * self.cycle

    def block_of(self, position: int) -> int:
        """The block that a position lies in."""
        return self.orders[0].block_of(position) if len(self.orders) == 1 else position // self.cycle

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
        dealt = permute(slot, self.cycle, mix(base ^ mix(cycle.astype(np.uint64))))
        ends = np.cumsum(self.shares)
        source = np.searchsorted(ends, dealt, side="right")
        shares = np.asarray(self.shares, dtype=np.int64)
        # A bijection between a cycle's slots and each data set's next positions: no counting, so no state.
        return source, cycle * shares[source] + dealt - (ends - shares)[source]

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


def shares_of(weights: Sequence[float], slots: int) -> tuple[int, ...]:
    """Weights to whole slots of a cycle of at least ``slots``, by largest remainders; each gets one at least.

    Raises:
        ConfigError: a weight is so small that a cycle, which one task makes at once, would be too long.
    """
    parts = np.asarray(weights, dtype=np.float64) / sum(weights)
    wanted, slots = slots, max(slots, int(np.ceil(4.0 / parts.min())))
    if slots > max(wanted, MAX_CYCLE):
        raise ConfigError(
            f"data.train: weight {min(weights):g} is less than {4 / MAX_CYCLE:.1e} of all weights: raise it, "
            "or leave that data set out"
        )
    exact = parts * slots
    shares = np.maximum(1, np.floor(exact)).astype(np.int64)
    missing = slots - int(shares.sum())
    shares[np.argsort(shares - exact, kind="stable")[: max(0, missing)]] += 1
    return tuple(int(share) for share in shares)


def step_hashes(ids: Ints, epochs: Ints, steps: int) -> Words:
    """A hash of the samples of each step that does not depend on their order: ``[steps x B]`` to ``[steps]``.

    Sums modulo 2**64 of a mix of sample number and epoch, so that workers' sums add up to the global batch's.
    """
    words = mix(mix(ids.astype(np.uint64)) ^ epochs.astype(np.uint64))
    sums: Words = words.reshape(steps, -1).sum(axis=1, dtype=np.uint64)
    return sums


MIN_ROW_GROUPS = 4
"""Row groups in a block, however large they are: fewer would hardly mix."""


def build_plan(config: RunConfig, manifests: Sequence[Manifest]) -> Plan:
    """The order in which a run goes through its data sets.

    Raises:
        ConfigError: ``drop_last`` leaves nothing, or a weight is too small.
    """
    data = config.data
    slots = data.chunk_size * data.chunks_per_block
    if len(manifests) == 1:
        return Plan((_order(config, manifests[0], slots),), seed=config.seed)
    shares = shares_of([source.weight for source in data.train], slots)
    # A data set's blocks are as large as its share of a cycle, so that a task reads about one block of each.
    orders = (_order(config, manifest, share) for manifest, share in zip(manifests, shares, strict=True))
    return Plan(tuple(orders), shares, config.seed)


def _order(config: RunConfig, manifest: Manifest, slots: int) -> Order:
    samples, bounds = len(manifest), manifest.row_group_bounds()
    common: dict[str, Any] = {
        "samples": samples,
        "manifest": manifest.digest,
        "seed": config.seed,
        "chunk_size": config.data.chunk_size,
        "epoch_size": _epoch_size(config, samples),
    }
    if bounds is None:
        return FixedChunkOrder(**common, chunks_per_block=max(1, round(slots / config.data.chunk_size)))
    row_groups = len(bounds) - 1
    wanted = round(slots / (samples / row_groups))
    return RowGroupOrder(**common, chunks_per_block=min(row_groups, max(MIN_ROW_GROUPS, wanted)), bounds=bounds)


def _epoch_size(config: RunConfig, samples: int) -> int:
    if not config.data.drop_last:
        return samples
    whole = samples // config.global_batch * config.global_batch
    if not whole:
        raise ConfigError(
            f"data.drop_last = true with global_batch = {config.global_batch} leaves nothing of {samples} samples: "
            "lower global_batch, or set data.drop_last=false"
        )
    return whole
