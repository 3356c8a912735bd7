"""The metrics of a run, logged every few steps."""

import math
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

from raylens.data import step_hashes
from raylens.train.loop.batch import Batch
from raylens.train.loop.data_wait import Bound, DataWait
from raylens.train.loop.stats import StepStats, TowerStats

__all__ = ["MetricsWindow", "StepMetrics"]


@dataclass(frozen=True)
class StepMetrics:
    """One line of ``metrics.jsonl``: the state of a run after ``step`` steps."""

    step: int
    samples_seen: int
    loss: float
    logit_scale: float
    grad_norm: float
    lr: float
    samples_per_second: float
    """Throughput of all workers since the previous record, without `paused_seconds`."""
    substituted: int
    """Samples that replace unusable ones since the workers started; of this worker until the metrics are reduced."""
    truncated: int
    """Captions that were cut at the context since the workers started; counted as `substituted` is."""
    skipped: int
    """Steps since the workers started that updated nothing, because the loss or the gradient was not finite."""
    data_wait: float
    """Share of the time since the previous record that was spent waiting for data, the first batch excepted."""
    data_cores: float
    """Average number of data tasks that worked at a time."""
    bound: Bound
    """Bottleneck of the run: ``device``, ``storage``, ``decode`` or ``network``."""
    first_batch_seconds: float | None
    """Seconds until the first batch arrived; only in the first record after a start."""
    image_norm: float | None
    """`TowerStats` explains this field and those up to `memory_bytes`; of this worker until they are reduced."""
    text_norm: float | None
    positive_cosines: tuple[int, ...]
    negative_cosines: tuple[int, ...]
    tokens: float
    memory_bytes: int
    sample_hashes: tuple[str, ...]
    """A hash of the samples of each step since the previous record; it depends neither on their order nor on the number
    of workers. Of this worker until the metrics are reduced."""
    epoch: float | None = None
    """Samples seen, divided by the size of all data sets together."""
    teraflops: float | None = None
    """Floating-point operations of the model's towers per second on each worker, in 1e12."""
    mfu: float | None = None
    """Model FLOPs utilisation: `teraflops` as a share of the GPU's peak rate in bf16; None if it is unknown."""
    paused_seconds: float = 0.0
    """Seconds since the previous record for which training was paused by evaluations and checkpoints."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, which has neither NaN nor infinity."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(self).items()
        }


class MetricsWindow:
    """Accumulates the metrics of one worker between two records."""

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
        """Add the batch of a step and the wait for it."""
        self._substituted += batch.substituted
        self._truncated += batch.truncated
        if first:
            # The first batch waits for everything to start, which is not throughput: its wait is logged apart.
            self._first_batch = waiting.made + waiting.sent
            self._mark += self._first_batch
            waiting = replace(waiting, made=0.0, sent=0.0)
        self._waiting += waiting
        self._hashes.append(f"{int(step_hashes(batch.sample_B, batch.epoch_B, 1)[0]):016x}")

    def pause(self, seconds: float) -> None:
        """Exclude seconds from the throughput, in which training was paused."""
        self._mark += seconds
        self._paused_seconds += seconds

    def record(
        self, step: int, global_batch: int, lr: float, stats: StepStats, tower_stats: TowerStats, skipped: int
    ) -> StepMetrics:
        """Return the metrics of the window, and begin the next window."""
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
