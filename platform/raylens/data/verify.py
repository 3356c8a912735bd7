"""A proof from the plan alone that every topology gets the same global batches and that epochs are complete.

The model follows the steps of the stream without reading any data: blocks of the plan are cut into one worker's
batches, these are dealt to the workers in turn, and an interrupted run resumes at the cursor.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from raylens.data.bijection import Ints, Words
from raylens.data.plan import Plan, step_hashes
from raylens.errors import CursorError

__all__ = ["Topology", "Verification", "deal_batches", "verify"]


@dataclass(frozen=True)
class Topology:
    """Numbers of workers over a run: ``((0, 4), (100, 2))`` starts with 4 and resumes at step 100 with 2."""

    workers_from: tuple[tuple[int, int], ...]

    def __str__(self) -> str:
        first, *rest = self.workers_from
        return f"{first[1]} workers" + "".join(f", {workers} from step {step}" for step, workers in rest)

    def segments(self, steps: int) -> Iterator[tuple[int, int, int]]:
        """Yield first step, end and number of workers of each segment between interruptions."""
        ends = [step for step, _ in self.workers_from[1:]] + [steps]
        for (first, workers), end in zip(self.workers_from, ends, strict=True):
            if min(first, steps) < min(end, steps):
                yield first, min(end, steps), workers


@dataclass(frozen=True)
class Verification:
    """The result of a verification: hashes, and epochs that were audited."""

    steps: int
    topologies: tuple[str, ...]
    hashes: tuple[str, ...]
    """Sample hash of each step, as in ``metrics.jsonl``."""
    epochs: tuple[int, ...]
    """Number of whole epochs that were audited, for each data set."""
    positions: int


def deal_batches(plan: Plan, batch: int, workers: int, start: int, stop: int) -> Iterator[list[Ints]]:
    """Yield the positions of each worker at steps ``start .. stop-1``, as the stream deals them.

    Raises:
        CursorError: the positions do not divide into one batch for each worker.
    """
    rows, first, last = batch // workers, start * batch, stop * batch
    dealt_blocks: list[Ints] = []
    held = np.zeros(0, dtype=np.int64)
    for block in range(plan.block_of(first), plan.block_of(last - 1) + 1):
        begin, end = plan.block_span(block)
        begin, end = max(begin, first), min(end, last)
        held = np.concatenate([held, np.arange(begin, end)])
        while len(held) >= rows:
            dealt_blocks.append(held[:rows])
            held = held[rows:]
            if len(dealt_blocks) == workers:
                yield dealt_blocks
                dealt_blocks = []
    if dealt_blocks or len(held):
        raise CursorError(
            f"steps {start} to {stop}: {len(held)} positions and {len(dealt_blocks)} blocks are left over"
        )


def verify(
    plan: Plan,
    batch: int,
    topologies: Sequence[Topology],
    steps: int,
    progress: Callable[[int, int], None] | None = None,
) -> Verification:
    """Deal ``steps`` steps under every topology, compare them, and audit each whole epoch.

    Args:
        plan: the order.
        batch: the global batch.
        topologies: at least one; the others are compared with the first.
        steps: number of steps from the start of the run.
        progress: called with the steps done and the total, over all topologies.

    Raises:
        CursorError: topologies differ, or an epoch misses or repeats a sample; the message names the step or sample.
    """
    work = _Work(plan, batch, steps, progress, steps * (len(topologies) + 1))
    reference = work.hashes(topologies[0])
    for topology in topologies[1:]:
        differing = np.flatnonzero(work.hashes(topology) != reference)
        if len(differing):
            raise CursorError(
                f"step {differing[0] + 1}: {topology} get other samples than {topologies[0]} "
                f"({len(differing)} of {steps} steps differ)"
            )
    return Verification(
        steps=steps,
        topologies=tuple(str(topology) for topology in topologies),
        hashes=tuple(f"{int(word):016x}" for word in reference),
        epochs=work.audit(),
        positions=steps * batch,
    )


@dataclass
class _Work:
    plan: Plan
    batch: int
    steps: int
    progress: Callable[[int, int], None] | None
    total: int
    done: int = 0

    def hashes(self, topology: Topology) -> Words:
        """Return the hash of each step, summed over its workers, ``[steps]``."""
        sums = np.zeros(self.steps, dtype=np.uint64)
        for start, stop, workers in topology.segments(self.steps):
            for step, dealt_blocks in enumerate(deal_batches(self.plan, self.batch, workers, start, stop), start):
                sums[step] = sum(self._hash(positions) for positions in dealt_blocks) & (1 << 64) - 1
                self._report(1)
        return sums

    def _hash(self, positions: Ints) -> int:
        located = self.plan.locate(positions)
        return int(step_hashes(self.plan.ids(located), located.epoch, 1)[0])

    def audit(self) -> tuple[int, ...]:
        """Check that no sample is repeated within an epoch; return the number of whole epochs of each data set."""
        coverages = [_EpochCoverage(order.samples, order.epoch_size) for order in self.plan.orders]
        for step in range(self.steps):
            located = self.plan.locate(np.arange(step * self.batch, (step + 1) * self.batch))
            for number, coverage in enumerate(coverages):
                here = located.source == number
                coverage.add(located.epoch[here], located.sample[here])
            self._report(1)
        return tuple(coverage.whole for coverage in coverages)

    def _report(self, steps: int) -> None:
        self.done += steps
        if self.progress:
            self.progress(self.done, self.total)


class _EpochCoverage:
    """The samples seen in each epoch under way (one, or two at a border), as a byte for each sample."""

    def __init__(self, samples: int, epoch_size: int) -> None:
        self.samples, self.epoch_size, self.whole = samples, epoch_size, 0
        self._open: dict[int, tuple[np.ndarray[tuple[int], np.dtype[np.bool_]], int]] = {}

    def add(self, epochs: Ints, samples: Ints) -> None:
        for epoch in np.unique(epochs).tolist():
            marks, count = self._open.get(epoch, (np.zeros(self.samples, dtype=np.bool_), 0))
            new = samples[epochs == epoch]
            again = new[marks[new]]
            marks[new] = True
            if len(again) or len(np.unique(new)) != len(new):
                raise CursorError(f"epoch {epoch}: sample {again[0] if len(again) else new[0]} is repeated")
            self._open[epoch] = marks, count + len(new)
            if count + len(new) == self.epoch_size:
                # As many samples as an epoch has, and none twice: the epoch is complete.
                del self._open[epoch]
                self.whole += 1
