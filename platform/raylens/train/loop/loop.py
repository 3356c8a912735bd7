"""The training loop, which knows neither Ray nor DeepSpeed: it is given batches and an engine."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from raylens.config import RunConfig
from raylens.errors import CursorError, TrainingError
from raylens.train.loop.batch import Batch
from raylens.train.loop.data_wait import DataWait
from raylens.train.loop.health import StepMonitor
from raylens.train.loop.metrics import MetricsWindow, StepMetrics
from raylens.train.loop.schedule import TrainingProgress, learning_rate
from raylens.train.loop.stats import StepStats, TowerStats

__all__ = ["Engine", "Hooks", "run"]


class Engine(Protocol):
    """Protocol of an object that takes training steps."""

    def train_step(self, batch: Batch, progress: TrainingProgress) -> StepStats:
        """Take one step: forward pass, backward pass and update, at the learning rates of this progress."""
        ...

    def tower_stats(self) -> TowerStats:
        """Return the statistics of the towers in the last step; computing them takes time."""
        ...


@dataclass(frozen=True)
class Hooks:
    """The functions that the loop calls, equally often on every worker."""

    log: Callable[[StepMetrics], None]
    due: Callable[[int], bool]
    """Whether a checkpoint is due after a step; called after each step."""
    save: Callable[[int], None]
    """Save the state after a step; training is paused while it runs."""
    stopping: Callable[[], bool]
    """Whether the run ends after this step, its state saved."""
    warn: Callable[[str], None]
    evaluate: Callable[[int, bool], float] = lambda step, saving: 0.0  # noqa: ARG005
    """Called after each step with whether a checkpoint follows; returns the seconds for which training was paused."""


def run(
    config: RunConfig, engine: Engine, batches: Iterable[Batch], hooks: Hooks, *, rank: int, start: int, steps: int
) -> int:
    """Train from step ``start`` to step ``steps``; each batch is one step.

    Returns:
        The last step that was taken: ``steps``, or an earlier one if the run was asked to stop.

    Raises:
        CursorError: a batch is not the one that the plan has at this step.
        TrainingError: too many steps in a row were skipped, or the data ends early.
    """
    step, window, monitor = start, MetricsWindow(start), StepMonitor(config)
    for step, (batch, waiting) in enumerate(_timed(batches), start + 1):
        _check_positions(config, batch, rank, step - 1)
        progress = TrainingProgress(step - 1, steps)
        stats = engine.train_step(batch, progress)
        if warning := monitor.observe(stats, step, tuple(batch.sample_B.tolist())):
            hooks.warn(warning)
        window.add(batch, waiting, first=step == start + 1)
        saving = hooks.due(step) or step == steps
        # Logged before each checkpoint too, so that the records of a resumed run have no gap.
        if saving or step % config.log_every_steps == 0:
            lr = learning_rate(config.optim.peak_lr, config.optim.schedule, progress)
            hooks.log(window.record(step, config.global_batch, lr, stats, engine.tower_stats(), monitor.skipped))
        # After the record, whose statistics are those of the training step.
        window.pause(hooks.evaluate(step, saving))
        if saving:
            began = time.monotonic()
            hooks.save(step)
            window.pause(time.monotonic() - began)
        if hooks.stopping():
            return step
    if step != steps:
        raise TrainingError(f"the data ended at step {step} of {steps}: the stream has fewer batches than the plan")
    return step


def _timed(batches: Iterable[Batch]) -> Iterator[tuple[Batch, DataWait]]:
    iterator = iter(batches)
    while True:
        asked = time.time()
        batch = next(iterator, None)
        if batch is None:
            return
        waiting = DataWait.for_batch(asked, time.time(), batch.made_at)
        yield batch, waiting + DataWait(reading=batch.read_seconds, decoding=batch.decode_seconds)


def _check_positions(config: RunConfig, batch: Batch, rank: int, step: int) -> None:
    """Check that a batch has the positions that the plan deals to this worker: none is lost, repeated or moved."""
    first = step * config.global_batch + rank * config.worker_batch
    expected = np.arange(first, first + config.worker_batch)
    if not np.array_equal(batch.position_B, expected):
        received = f"{batch.position_B[0]} to {batch.position_B[-1]}" if len(batch.position_B) else "none"
        raise CursorError(
            f"step {step + 1}, worker {rank}: expected positions {first} to {first + config.worker_batch - 1} of the "
            f"plan, got {received} ({len(batch.position_B)} samples)"
        )
