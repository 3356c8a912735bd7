"""The training loop. It knows neither Ray nor DeepSpeed: batches and an engine come from outside.

Shapes: B a worker's batch, S image size, T tokens.
"""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from raylens.config import RunConfig
from raylens.errors import CursorError, TrainingError
from raylens.train.schedule import learning_rate

__all__ = ["Batch", "Engine", "Hooks", "Record", "StepStats", "run"]


@dataclass(frozen=True)
class Batch:
    """A worker's share of a global batch."""

    image_BSSC: NDArray[np.uint8]
    ids_BT: NDArray[np.int32]
    position_B: NDArray[np.int64]
    substituted: int
    """Samples that stand in for unusable ones."""


@dataclass(frozen=True)
class StepStats:
    """What a step tells: the loss over the global batch, the scale in use, the gradient's norm."""

    loss: float
    logit_scale: float
    grad_norm: float


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

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON, which has no NaN and no infinity."""
        return {name: value if math.isfinite(value) else None for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Hooks:
    """What the loop calls, the same number of times on every worker."""

    log: Callable[[Record], None]
    save: Callable[[int], None]


def run(
    config: RunConfig, engine: Engine, batches: Iterable[Batch], hooks: Hooks, *, rank: int, start: int, steps: int
) -> None:
    """Train from step ``start`` to ``steps``; one batch is one step.

    Raises:
        CursorError: a batch is not the one that the plan has at this step.
        TrainingError: the loss is no longer finite, or the batches end early.
    """
    step, substituted = start, 0
    mark, marked_step = time.monotonic(), start
    for step, batch in enumerate(batches, start + 1):
        _check_place(config, batch, rank, step - 1)
        lr = learning_rate(config.optim, step - 1, steps)
        stats = engine.train_step(batch, lr)
        _check_finite(stats, step)
        substituted += batch.substituted
        if step % config.log_every_steps == 0 or step == steps:
            now = time.monotonic()
            rate = (step - marked_step) * config.global_batch / max(1e-9, now - mark)
            hooks.log(
                Record(
                    step=step,
                    samples_seen=step * config.global_batch,
                    lr=lr,
                    samples_per_second=rate,
                    substituted=substituted,
                    **asdict(stats),
                )
            )
            mark, marked_step = now, step
        if step % config.checkpoint.every_steps == 0 or step == steps:
            hooks.save(step)
    if step != steps:
        raise TrainingError(f"the data ended at step {step} of {steps}: the stream and the plan disagree")


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


def _check_finite(stats: StepStats, step: int) -> None:
    if not math.isfinite(stats.loss):
        raise TrainingError(
            f"loss = {stats.loss} at step {step} (logit scale {stats.logit_scale:.1f}, gradient norm "
            f"{stats.grad_norm:.3g}): lower optim.peak_lr, lengthen optim.warmup_steps, or set optim.clip_norm=1"
        )
