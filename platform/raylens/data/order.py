"""The order of one data set: a pure function from position to sample.

Positions 0, 1, 2, ... continue through all epochs. The samples are cut into *chunks* of consecutive samples, each read
with one ranged request. The chunks are permuted over the whole data set; each *block* takes the next
``chunks_per_block`` chunks and permutes the samples inside. Both permutations are keyed bijections, so no order is
stored and resuming replays nothing.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np

from raylens.data.bijection import Ints, Words, key_of, mix, permute
from raylens.errors import CursorError

__all__ = ["VERSION", "FixedChunkOrder", "Order", "RowGroupOrder"]

VERSION = 2


@dataclass(frozen=True)
class Order(ABC):
    """The common part of both orders: sizes, seed and keys."""

    samples: int
    manifest: str
    """Digest of the manifest; the order depends on it."""
    seed: int
    chunk_size: int
    chunks_per_block: int
    epoch_size: int
    """Positions in an epoch: all samples, or fewer if the partial batch is dropped."""

    def __post_init__(self) -> None:
        if min(self.samples, self.chunk_size, self.chunks_per_block, self.epoch_size) < 1 or (
            self.epoch_size > self.samples
        ):
            raise CursorError(
                f"samples = {self.samples}, chunk_size = {self.chunk_size}, "
                f"chunks_per_block = {self.chunks_per_block}, epoch_size = {self.epoch_size}: "
                "each must be at least 1, and epoch_size at most samples"
            )

    @property
    @abstractmethod
    def blocks_per_epoch(self) -> int:
        """Number of blocks in an epoch; with row groups, the last ones may be empty."""

    @abstractmethod
    def block_span(self, block: int) -> tuple[int, int]:
        """Return the first and the end position of a block, counted through all epochs."""

    @abstractmethod
    def block_of(self, position: int) -> int:
        """Return the block that contains a position."""

    @abstractmethod
    def sample_at(self, positions: Ints) -> Ints:
        """Return the sample numbers, in manifest order, at positions ``[n]``."""

    def draw_keys(self, epochs: Ints, samples: Ints) -> Words:
        """Return the keys ``[n]`` of the random crop and caption of samples in epochs."""
        base = np.uint64(key_of(f"raylens draws {VERSION} {self.manifest} {self.seed}"))
        return mix(mix(base ^ mix(epochs.astype(np.uint64))) ^ samples.astype(np.uint64))

    @cached_property
    def _key(self) -> int:
        return key_of(f"raylens order {VERSION} {self.manifest} {self.seed} {self.chunk_size} {self.chunks_per_block}")

    def _epoch_keys(self, epochs: Ints) -> Words:
        return mix(np.uint64(self._key) ^ mix(epochs.astype(np.uint64)))


@dataclass(frozen=True)
class FixedChunkOrder(Order):
    """Chunks of ``chunk_size`` consecutive samples; takes O(1) memory at any size of the data set."""

    @property
    def block_size(self) -> int:
        """Number of samples in a block; the last block of an epoch may have fewer."""
        return self.chunk_size * self.chunks_per_block

    @property
    def blocks_per_epoch(self) -> int:
        """Number of blocks that cover every position of an epoch once."""
        return -(-self.epoch_size // self.block_size)

    def block_span(self, block: int) -> tuple[int, int]:
        """Implement `Order.block_span` for equal blocks."""
        epoch, number = divmod(block, self.blocks_per_epoch)
        first, start = epoch * self.epoch_size, number * self.block_size
        return first + start, first + min(start + self.block_size, self.epoch_size)

    def block_of(self, position: int) -> int:
        """Implement `Order.block_of` for equal blocks."""
        epoch, within = divmod(position, self.epoch_size)
        return epoch * self.blocks_per_epoch + within // self.block_size

    def sample_at(self, positions: Ints) -> Ints:
        """Implement `Order.sample_at` by two keyed permutations."""
        epoch, within = np.divmod(np.asarray(positions, dtype=np.int64), self.epoch_size)
        block, slot = np.divmod(within, self.block_size)
        keys = self._epoch_keys(epoch)
        slot = self._shuffle_inside(block, slot, keys)
        chunk, offset = np.divmod(slot, self.chunk_size)
        chunk = self._shuffle_chunks(block * self.chunks_per_block + chunk, keys)
        # Chunk borders move every epoch, so that neighbours change and the short chunk is not always the same.
        shift = (mix(keys + np.uint64(1)) % np.uint64(self.samples)).astype(np.int64)
        return (chunk * self.chunk_size + offset + shift) % self.samples

    def _shuffle_inside(self, block: Ints, slot: Ints, keys: Words) -> Ints:
        last = -(-self.samples // self.block_size) - 1
        size = self.samples - last * self.block_size
        block_keys = mix(keys ^ mix(block.astype(np.uint64) + np.uint64(2)))
        return np.where(
            block == last, permute(slot % size, size, block_keys), permute(slot, self.block_size, block_keys)
        )

    def _shuffle_chunks(self, chunk: Ints, keys: Words) -> Ints:
        # The short chunk at the end, if any, stays last: every other one has exactly chunk_size samples.
        full = self.samples // self.chunk_size
        if full == 0:
            return chunk
        return np.where(chunk < full, permute(chunk % full, full, keys), chunk)


@dataclass(frozen=True)
class RowGroupOrder(Order):
    """Chunks that are the row groups of the files; takes a few bytes of memory for each chunk."""

    bounds: Ints = field(compare=False, repr=False)
    """First sample of each row group, then the number of samples, ``[R + 1]``; the manifest's digest covers it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bounds[0] != 0 or self.bounds[-1] != self.samples or (np.diff(self.bounds) < 1).any():
            raise CursorError(f"row group bounds must ascend from 0 to samples = {self.samples} without an empty group")

    @property
    def blocks_per_epoch(self) -> int:
        """Implement `Order.blocks_per_epoch` for row groups."""
        return -(-(len(self.bounds) - 1) // self.chunks_per_block)

    def block_span(self, block: int) -> tuple[int, int]:
        """Implement `Order.block_span` for blocks of row groups."""
        epoch, number = divmod(block, self.blocks_per_epoch)
        starts = _epoch(self, epoch).block_starts
        first, size = epoch * self.epoch_size, self.epoch_size
        return first + min(int(starts[number]), size), first + min(int(starts[number + 1]), size)

    def block_of(self, position: int) -> int:
        """Implement `Order.block_of` for blocks of row groups."""
        epoch, within = divmod(position, self.epoch_size)
        starts = _epoch(self, epoch).block_starts
        return epoch * self.blocks_per_epoch + int(np.searchsorted(starts, within, side="right")) - 1

    def sample_at(self, positions: Ints) -> Ints:
        """Implement `Order.sample_at` epoch by epoch."""
        epoch, within = np.divmod(np.asarray(positions, dtype=np.int64), self.epoch_size)
        result = np.empty_like(within)
        for number in np.unique(epoch):
            here = epoch == number
            result[here] = self._in_epoch(int(number), within[here])
        return result

    def _in_epoch(self, epoch: int, within: Ints) -> Ints:
        table = _epoch(self, epoch)
        block = np.searchsorted(table.block_starts, within, side="right") - 1
        slot = within.copy()
        for number in np.unique(block):
            here = block == number
            start, stop = int(table.block_starts[number]), int(table.block_starts[number + 1])
            keys = np.full(int(here.sum()), table.key + int(number), dtype=np.uint64)
            slot[here] = start + permute(within[here] - start, stop - start, mix(mix(keys)))
        chunk = np.searchsorted(table.chunk_starts, slot, side="right") - 1
        return self.bounds[table.chunks[chunk]] + slot - table.chunk_starts[chunk]


@dataclass(frozen=True)
class _Epoch:
    key: int
    chunks: Ints
    """Chunk numbers in the order of the epoch, ``[R]``."""
    chunk_starts: Ints
    """Position in the epoch at which each chunk begins, then the epoch's end, ``[R + 1]``."""
    block_starts: Ints


@lru_cache(maxsize=8)
def _epoch(order: RowGroupOrder, epoch: int) -> _Epoch:
    count = len(order.bounds) - 1
    keys = order._epoch_keys(np.full(count, epoch, dtype=np.int64))
    chunks = permute(np.arange(count), count, keys)
    lengths = np.diff(order.bounds)[chunks]
    chunk_starts = np.concatenate([[0], np.cumsum(lengths)])
    block_starts = np.append(chunk_starts[: -1 : order.chunks_per_block], chunk_starts[-1])
    return _Epoch(int(keys[0] >> np.uint64(8)), chunks, chunk_starts, block_starts)
