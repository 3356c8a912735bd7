"""The training loop. It knows neither Ray nor DeepSpeed: batches and an engine come from outside.

Shapes: B a worker's batch, S image size, T tokens.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from raylens.config import RunConfig
from raylens.data.plan import step_hashes
from raylens.errors import CursorError, TrainingError
from raylens.train.schedule import learning_rate
from raylens.train.stats import StepStats
from raylens.train.waiting import Bound, Waiting
from raylens.train.watch import Watch

__all__ = ["Batch", "Engine", "Hooks", "Record", "run"]


@dataclass(frozen=True)
class Batch:
    """A worker's share of a global batch."""

    image_BSSC: NDArray[np.uint8]
    ids_BT: NDArray[np.int32]
    position_B: NDArray[np.int64]
    sample_B: NDArray[np.int64]
    """Counted over all data sets."""
    epoch_B: NDArray[np.int64]
    substituted: int = 0
    """Samples that stand in for unusable ones."""
    truncated: int = 0
    """Captions that are longer than the context and were cut."""
    made_at: float = 0.0
    """When the last of it was made, in seconds of the system's clock."""
    read_seconds: float = 0.0
    """What data tasks spent on reading it, and below on decoding it."""
    decode_seconds: float = 0.0


class Engine(Protocol):
    """What can take a training step."""

    def train_step(self, batch: Batch, lr: float) -> StepStats:
        """Forward, backward and update."""
        ...


@dataclass(frozen=True)
class Record:
    """One line of ``metrics.jsonl``: the state after ``step`` steps."""

    step: int
    samples_seen: int
    loss: float
    logit_scale: float
    grad_norm: float
    lr: float
    samples_per_second: float
    """Since the previous record, over all workers."""
    substituted: int
    """Samples since the workers started that stand in for unusable ones: of this worker, as the loop knows them."""
    truncated: int
    """Captions since the workers started that were cut at the context; counted as `substituted` is."""
    skipped: int
    """Steps since the workers started that changed nothing, because loss or gradient were not finite."""
    data_wait: float
    """Share of the time since the previous record that was spent waiting for data (not for the first batch)."""
    data_cores: float
    """Data tasks that were busy at a time, on average."""
    bound: Bound
    """What held the run up: ``device``, ``storage``, ``decode`` or ``network``."""
    first_batch_seconds: float | None
    """In the first record of a start, how long the first batch took to come."""
    sample_hashes: tuple[str, ...]
    """Of each step since the previous record, a hash of its samples that does not depend on their order or on the
    number of workers: of this worker, as the loop knows them."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON, which has no NaN and no infinity."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(self).items()
        }


@dataclass(frozen=True)
class Hooks:
    """What the loop calls, the same number of times on every worker."""

    log: Callable[[Record], None]
    save: Callable[[int], None]
    warn: Callable[[str], None]


def run(
    config: RunConfig, engine: Engine, batches: Iterable[Batch], hooks: Hooks, *, rank: int, start: int, steps: int
) -> None:
    """Train from step ``start`` to ``steps``; one batch is one step.

    Raises:
        CursorError: a batch is not the one that the plan has at this step.
        TrainingError: too many steps in a row were skipped, or the batches end early.
    """
    step, since, watch = start, _Since(start), Watch(config)
    for step, (batch, waiting) in enumerate(_timed(batches), start + 1):
        _check_place(config, batch, rank, step - 1)
        lr = learning_rate(config.optim, step - 1, steps)
        stats = engine.train_step(batch, lr)
        if warning := watch.see(stats, step, tuple(batch.sample_B.tolist())):
            hooks.warn(warning)
        since.add(batch, waiting, first=step == start + 1)
        saving = step % config.checkpoint.every_steps == 0 or step == steps
        # Before each checkpoint too: a resume must not leave a hole in what the records say of each step.
        if saving or step % config.log_every_steps == 0:
            hooks.log(since.record(step, config.global_batch, lr, stats, watch.skipped))
        if saving:
            hooks.save(step)
    if step != steps:
        raise TrainingError(f"the data ended at step {step} of {steps}: the stream and the plan disagree")


def _timed(batches: Iterable[Batch]) -> Iterator[tuple[Batch, Waiting]]:
    iterator = iter(batches)
    while True:
        asked = time.time()
        batch = next(iterator, None)
        if batch is None:
            return
        waiting = Waiting.for_batch(asked, time.time(), batch.made_at)
        yield batch, waiting + Waiting(reading=batch.read_seconds, decoding=batch.decode_seconds)


class _Since:
    """What gathers between two records."""

    def __init__(self, start: int) -> None:
        self._substituted = self._truncated = 0
        self._first_batch: float | None = None
        self._begin(start)

    def _begin(self, step: int) -> None:
        self._step, self._mark = step, time.monotonic()
        self._waiting = Waiting()
        self._hashes: list[str] = []

    def add(self, batch: Batch, waiting: Waiting, *, first: bool) -> None:
        self._substituted += batch.substituted
        self._truncated += batch.truncated
        if first:
            # It waits for everything to start, which says nothing about what comes: that time is told apart.
            self._first_batch = waiting.made + waiting.sent
            self._mark += self._first_batch
            waiting = replace(waiting, made=0.0, sent=0.0)
        self._waiting += waiting
        self._hashes.append(f"{int(step_hashes(batch.sample_B, batch.epoch_B, 1)[0]):016x}")

    def record(self, step: int, global_batch: int, lr: float, stats: StepStats, skipped: int) -> Record:
        seconds = max(1e-9, time.monotonic() - self._mark)
        waiting = self._waiting + Waiting(seconds=seconds)
        record = Record(
            step=step,
            samples_seen=step * global_batch,
            lr=lr,
            samples_per_second=(step - self._step) * global_batch / seconds,
            substituted=self._substituted,
            truncated=self._truncated,
            skipped=skipped,
            data_wait=waiting.share,
            data_cores=waiting.data_cores,
            bound=waiting.bound,
            first_batch_seconds=self._first_batch,
            sample_hashes=tuple(self._hashes),
            loss=stats.loss,
            logit_scale=stats.logit_scale,
            grad_norm=stats.grad_norm,
        )
        self._first_batch = None
        self._begin(step)
        return record


def _check_place(config: RunConfig, batch: Batch, rank: int, step: int) -> None:
    """No sample lost, repeated or moved to another worker: each batch says where in the plan it stands."""
    first = step * config.global_batch + rank * config.worker_batch
    expected = np.arange(first, first + config.worker_batch)
    if not np.array_equal(batch.position_B, expected):
        found = f"{batch.position_B[0]} to {batch.position_B[-1]}" if len(batch.position_B) else "none"
        raise CursorError(
            f"step {step + 1}, worker {rank}: expected positions {first} to {first + config.worker_batch - 1} of the "
            f"plan, got {found} ({len(batch.position_B)} samples)"
        )
