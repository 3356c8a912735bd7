"""The plan: a pure function from a position in the training stream to data set, epoch and sample.

A single data set is read in its own order. Several are mixed in *cycles*: every data set has a fixed number of slots in
each cycle, its share, and a keyed bijection assigns the slots. A position in the mixture is therefore one integer, and
each data set goes through its own epochs without losing or repeating a sample.
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
    """The random crop and caption of a sample in an epoch; they depend on the sample's key alone."""

    crop: CropDraw
    caption: float

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> "Draws":
        """Build the choices from four uniform draws."""
        return cls(CropDraw(*values[:3].tolist()), float(values[3]))

    def choose(self, captions: int) -> int:
        """Return the index of the chosen caption, given their number."""
        return int(self.caption * captions)

    def box(self, width: int, height: int, min_scale: float) -> tuple[float, float, float, float]:
        """Return left, top, right and bottom of the crop in pixels; the centre crop if ``min_scale`` is 1."""
        if min_scale < 1.0:
            return self.crop.box(width, height, min_scale)
        return CropDraw(0.0, 0.5, 0.5).box(width, height, 1.0)


MAX_CYCLE = 1 << 14


@dataclass(frozen=True)
class Located:
    """Data set, epoch and sample at positions; each field is ``[n]``."""

    source: Ints
    """Index of the data set in the configuration."""
    epoch: Ints
    """Epoch of that data set, from 0."""
    sample: Ints
    """Sample number within that data set, in manifest order."""


@dataclass(frozen=True)
class Plan:
    """The order of one or several data sets under a seed."""

    orders: tuple[Order, ...]
    shares: tuple[int, ...] = (1,)
    """Slots of each data set in a cycle of the mixture."""
    seed: int = 0

    VERSION = VERSION

    @cached_property
    def offsets(self) -> Ints:
        """Number of the first sample of each data set, counted over all data sets, ``[D + 1]``."""
        return np.concatenate([[0], np.cumsum([order.samples for order in self.orders])])

    @property
    def samples(self) -> int:
        """Number of samples of all data sets together."""
        return int(self.offsets[-1])

    @property
    def cycle(self) -> int:
        """Number of positions in a cycle of the mixture."""
        return sum(self.shares)

    def block_span(self, block: int) -> tuple[int, int]:
        """Return first and end position of one task: a block of the data set, or a cycle of the mixture."""
        if len(self.orders) == 1:
            return self.orders[0].block_span(block)
        return block * self.cycle, (block + 1) * self.cycle

    def block_of(self, position: int) -> int:
        """Return the block that contains a position."""
        return self.orders[0].block_of(position) if len(self.orders) == 1 else position // self.cycle

    def locate(self, positions: Ints) -> Located:
        """Return data set, epoch and sample at positions ``[n]``."""
        source, within = self._deal(np.asarray(positions, dtype=np.int64))
        epoch, sample = np.empty_like(within), np.empty_like(within)
        for number, order in enumerate(self.orders):
            here = source == number
            epoch[here] = within[here] // order.epoch_size
            sample[here] = order.sample_at(within[here])
        return Located(source, epoch, sample)

    def _deal(self, positions: Ints) -> tuple[Ints, Ints]:
        """Return each position's data set, and the position in that data set's own order."""
        if len(self.orders) == 1:
            return np.zeros_like(positions), positions
        cycle, slot = np.divmod(positions, self.cycle)
        base = np.uint64(key_of(f"raylens mixture {VERSION} {self.seed} {self.shares}"))
        dealt = permute(slot, self.cycle, mix(base ^ mix(cycle.astype(np.uint64))))
        ends = np.cumsum(self.shares)
        source = np.searchsorted(ends, dealt, side="right")
        shares = np.asarray(self.shares, dtype=np.int64)
        # The slots of a cycle map one to one to each data set's next positions, so there is no state to count.
        return source, cycle * shares[source] + dealt - (ends - shares)[source]

    def ids(self, located: Located) -> Ints:
        """Return sample numbers counted over all data sets, ``[n]``."""
        return self.offsets[located.source] + located.sample

    def draw_keys(self, located: Located) -> Words:
        """Return the keys ``[n]`` of the random choices; they do not depend on the other data sets of a mixture."""
        keys = np.empty(len(located.source), dtype=np.uint64)
        for number, order in enumerate(self.orders):
            here = located.source == number
            keys[here] = order.draw_keys(located.epoch[here], located.sample[here])
        return keys


def shares_of(weights: Sequence[float], slots: int) -> tuple[int, ...]:
    """Round weights to whole slots of a cycle of at least ``slots``, by largest remainders and at least 1 each.

    Raises:
        ConfigError: a weight is so small that a cycle, which one task holds in memory, would be too long.
    """
    parts = np.asarray(weights, dtype=np.float64) / sum(weights)
    wanted, slots = slots, max(slots, int(np.ceil(4.0 / parts.min())))
    if slots > max(wanted, MAX_CYCLE):
        raise ConfigError(
            f"data.train: weight = {min(weights):g} is less than {4 / MAX_CYCLE:.1e} of the sum of all weights: "
            "raise it, or remove that data set"
        )
    exact = parts * slots
    shares = np.maximum(1, np.floor(exact)).astype(np.int64)
    missing = slots - int(shares.sum())
    shares[np.argsort(shares - exact, kind="stable")[: max(0, missing)]] += 1
    return tuple(int(share) for share in shares)


def step_hashes(ids: Ints, epochs: Ints, steps: int) -> Words:
    """Hash the samples of each step, independent of their order: ``[steps x B]`` to ``[steps]``.

    The hash is a sum modulo 2**64 over samples, so that the workers' hashes add up to that of the global batch.
    """
    words = mix(mix(ids.astype(np.uint64)) ^ epochs.astype(np.uint64))
    sums: Words = words.reshape(steps, -1).sum(axis=1, dtype=np.uint64)
    return sums


MIN_ROW_GROUPS = 4
"""Least row groups in a block, however large they are: fewer would hardly be mixed."""


def build_plan(config: RunConfig, manifests: Sequence[Manifest]) -> Plan:
    """Return the order in which a run goes through its data sets.

    Raises:
        ConfigError: ``drop_last`` leaves no batch, or a weight is too small.
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
            f"data.drop_last = true with global_batch = {config.global_batch} leaves no batch of {samples} samples: "
            "lower global_batch, or set data.drop_last=false"
        )
    return whole
