"""The metrics of a run, reduced over the workers, written to its folder and sent to its listeners."""

from collections.abc import Callable
from dataclasses import replace

import torch

from raylens.data import check_budget, summary
from raylens.errors import StorageError
from raylens.estimate import ModelFlops
from raylens.storage import open_store
from raylens.train.collective.coordinator import Coordinator
from raylens.train.collective.reduce import reduce_metrics
from raylens.train.evaluation.pending import EvalResult
from raylens.train.loop.events import Evaluated, Metrics, RunEvent, Warned
from raylens.train.loop.metrics import StepMetrics
from raylens.train.run.worker_spec import WorkerSpec
from raylens.train.runs.jsonl import EVALUATIONS, METRICS, JsonlWriter

__all__ = ["MetricsLogger"]


class MetricsLogger:
    """Logs the metrics on one worker; the first worker writes them and sends the events.

    Args:
        spec: the specification of the worker.
        coordinator: the connection to the other workers.
        start: the step from which this start resumed; later records are replaced.
        device: the device of the worker.
        on_event: receives the events of the first worker.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        coordinator: Coordinator,
        start: int,
        device: torch.device,
        on_event: Callable[[RunEvent], None],
    ) -> None:
        self._spec, self._start, self._device, self._on_event = spec, start, device, on_event
        self._run = open_store(spec.run_uri)
        names = (METRICS, *([EVALUATIONS] if spec.evaluation else [])) if coordinator.rank == 0 else ()
        self._logs = {name: JsonlWriter(self._run, name, start) for name in names}
        self._flops = ModelFlops(spec.config, torch.cuda.get_device_name(device) if device.type == "cuda" else None)
        self._kept_back = False
        self.last: StepMetrics | None = None
        """The last metrics of all workers."""

    def add(self, record: StepMetrics) -> None:
        """Reduce and log the metrics of a worker. Collective.

        Raises:
            QuarantineError: too many samples cannot be used.
        """
        record = self._completed(reduce_metrics(record, self._device))
        self._check_quarantine(record)
        self.last = record
        self._write(METRICS, record.as_dict())
        self._on_event(Metrics(record, self._spec.steps))

    def evaluated(self, result: EvalResult) -> None:
        """Log the result of an evaluation, on the first worker."""
        samples = result.step * self._spec.config.global_batch
        values = {metric.name: metric.value for metric in result.metrics}
        goals = {metric.name: metric.goal for metric in result.metrics}
        row = {"step": result.step, "samples_seen": samples, "seconds": result.seconds, **values, "goals": goals}
        self._write(EVALUATIONS, row)
        self._on_event(Evaluated(result.step, result.metrics, result.seconds))
        # Soon, because a restart may resume from a checkpoint that exists already, after this evaluation.
        self.publish()

    def publish(self) -> None:
        """Start to write what was logged."""
        for log in self._logs.values():
            log.publish()

    def flush(self) -> None:
        """Write what was logged, and wait for it.

        Raises:
            StorageError: the store cannot be written to.
        """
        for log in self._logs.values():
            if failure := log.flush():
                raise StorageError(f"the last metrics could not be written: {failure}")

    def _write(self, name: str, row: dict[str, object]) -> None:
        log = self._logs.get(name)
        if log is None:
            return
        log.add(row)
        kept_back, self._kept_back = self._kept_back, bool(log.failure)
        if self._kept_back and not kept_back:
            self._on_event(Warned(f"metrics wait in memory, because the store cannot be written to: {log.failure}"))

    def _completed(self, record: StepMetrics) -> StepMetrics:
        workers, peak = self._spec.config.resources.workers, self._flops.peak
        flops = record.samples_per_second * self._flops.of_pair(record.tokens) / workers
        epoch = record.samples_seen / self._spec.plan.samples
        return replace(record, epoch=epoch, teraflops=flops / 1e12, mfu=None if peak is None else flops / peak)

    def _check_quarantine(self, record: StepMetrics) -> None:
        read = (record.step - self._start) * self._spec.config.global_batch
        budget = self._spec.config.data.quarantine_budget
        if record.substituted > budget * read:  # only then are the reasons read from the store
            where = f"{summary(self._run)}; see {self._run.describe()}/quarantine"
            check_budget(record.substituted, read, budget, where)
