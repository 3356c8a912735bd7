"""What is written down of a run every few steps."""

import math
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

from raylens.data.plan import step_hashes
from raylens.train.loop.batch import Batch
from raylens.train.loop.data_wait import Bound, DataWait
from raylens.train.loop.stats import StepStats, TowerStats

__all__ = ["MetricsWindow", "StepMetrics"]


@dataclass(frozen=True)
class StepMetrics:
    """One line of ``metrics.jsonl``: the state after ``step`` steps."""

    step: int
    samples_seen: int
    loss: float
    logit_scale: float
    grad_norm: float
    lr: float
    samples_per_second: float
    """Since the previous record, over all workers, without the time of `pause`."""
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
    image_norm: float | None
    """This and what follows: see `TowerStats`. Of this worker, as the loop knows it."""
    text_norm: float | None
    positive_cosines: tuple[int, ...]
    negative_cosines: tuple[int, ...]
    tokens: float
    memory_bytes: int
    sample_hashes: tuple[str, ...]
    """Of each step since the previous record, a hash of its samples that does not depend on their order or on the
    number of workers: of this worker, as the loop knows them."""
    epoch: float | None = None
    """Samples seen, in sizes of all data sets together."""
    teraflops: float | None = None
    """That the model needed in a second, of each worker: multiplications and additions of its towers, in 1e12."""
    mfu: float | None = None
    """The same as a share of what the GPU can do in bf16; None where that is not known."""
    paused_seconds: float = 0.0
    """Seconds since the previous record that training waited for evaluations and checkpoints."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON, which has no NaN and no infinity."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(self).items()
        }


class MetricsWindow:
    """What gathers between two records of a worker."""

    def __init__(self, start: int) -> None:
        self._substituted = self._truncated = 0
        self._first_batch: float | None = None
        self._begin(start)

    def _begin(self, step: int) -> None:
        self._step, self._mark = step, time.monotonic()
        self._paused_seconds = 0.0
        self._waiting = DataWait()
        self._hashes: list[str] = []

    def add(self, batch: Batch, waiting: DataWait, *, first: bool) -> None:
        """Take a step's batch, and how it was waited for."""
        self._substituted += batch.substituted
        self._truncated += batch.truncated
        if first:
            # It waits for everything to start, which says nothing about what comes: that time is told apart.
            self._first_batch = waiting.made + waiting.sent
            self._mark += self._first_batch
            waiting = replace(waiting, made=0.0, sent=0.0)
        self._waiting += waiting
        self._hashes.append(f"{int(step_hashes(batch.sample_B, batch.epoch_B, 1)[0]):016x}")

    def pause(self, seconds: float) -> None:
        """For so long, which says nothing about the speed of training."""
        self._mark += seconds
        self._paused_seconds += seconds

    def record(
        self, step: int, global_batch: int, lr: float, stats: StepStats, tower_stats: TowerStats, skipped: int
    ) -> StepMetrics:
        """All since the record before; then everything begins anew."""
        seconds = max(1e-9, time.monotonic() - self._mark)
        waiting = self._waiting + DataWait(seconds=seconds)
        record = StepMetrics(
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
            paused_seconds=self._paused_seconds,
            **asdict(tower_stats),
        )
        self._first_batch = None
        self._begin(step)
        return record
