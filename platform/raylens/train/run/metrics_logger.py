"""The records of a run on its way from the workers to its folder, and to whoever watches."""

from collections.abc import Callable
from dataclasses import replace

import torch

from raylens.data.quarantine import check_budget, summary
from raylens.errors import StorageError
from raylens.estimate.flops import Flops
from raylens.storage import open_store
from raylens.train.collective.coordinator import Control
from raylens.train.collective.reduce import over_workers
from raylens.train.evaluation.pending import Finding
from raylens.train.loop.events import Evaluated, Metrics, News, Warned
from raylens.train.loop.metrics import Record
from raylens.train.run.worker_spec import WorkerJob
from raylens.train.runs.jsonl import EVALUATIONS, METRICS, RecordLog

__all__ = ["Records"]


class Records:
    """Of one worker; the first writes and tells.

    Args:
        job: the worker's.
        control: says which worker this is.
        start: the step that this start goes on from; what was recorded behind it is recorded again.
        device: that the worker computes on.
        tell: takes news of the first worker.
    """

    def __init__(
        self, job: WorkerJob, control: Control, start: int, device: torch.device, tell: Callable[[News], None]
    ) -> None:
        self._job, self._start, self._device, self._tell = job, start, device, tell
        self._run = open_store(job.run_uri)
        names = (METRICS, *([EVALUATIONS] if job.evaluation else [])) if control.rank == 0 else ()
        self._logs = {name: RecordLog(self._run, name, start) for name in names}
        self._flops = Flops(job.config, torch.cuda.get_device_name(device) if device.type == "cuda" else None)
        self._kept_back = False
        self.last: Record | None = None
        """That of all workers which was added last."""

    def add(self, record: Record) -> None:
        """A worker's own. Collective.

        Raises:
            QuarantineError: too many samples cannot be used.
        """
        record = self._completed(over_workers(record, self._device))
        self._check_quarantine(record)
        self.last = record
        self._write(METRICS, record.as_dict())
        self._tell(Metrics(record, self._job.steps))

    def evaluated(self, found: Finding) -> None:
        """Figures of an evaluation, on the first worker."""
        samples = found.step * self._job.config.global_batch
        self._write(
            EVALUATIONS, {"step": found.step, "samples_seen": samples, "seconds": found.seconds, **found.metrics}
        )
        self._tell(Evaluated(found.step, found.metrics, found.seconds))
        # Soon, because a checkpoint may be there already that a restart would go on from, behind this evaluation.
        self.publish()

    def publish(self) -> None:
        """Write soon what was added."""
        for log in self._logs.values():
            log.publish()

    def flush(self) -> None:
        """Write now what was added.

        Raises:
            StorageError: the store does not take it.
        """
        for log in self._logs.values():
            if failure := log.flush():
                raise StorageError(f"the last records could not be written: {failure}")

    def _write(self, name: str, row: dict[str, object]) -> None:
        log = self._logs.get(name)
        if log is None:
            return
        log.add(row)
        kept_back, self._kept_back = self._kept_back, bool(log.failure)
        if self._kept_back and not kept_back:
            self._tell(Warned(f"records are kept back, because the store does not take them: {log.failure}"))

    def _completed(self, record: Record) -> Record:
        workers, peak = self._job.config.resources.workers, self._flops.peak
        flops = record.samples_per_second * self._flops.of_pair(record.tokens) / workers
        epoch = record.samples_seen / self._job.plan.samples
        return replace(record, epoch=epoch, teraflops=flops / 1e12, mfu=None if peak is None else flops / peak)

    def _check_quarantine(self, record: Record) -> None:
        read = (record.step - self._start) * self._job.config.global_batch
        budget = self._job.config.data.quarantine_budget
        if record.substituted > budget * read:  # only then are the reasons worth a look at the store
            where = f"{summary(self._run)}; see {self._run.describe()}/quarantine"
            check_budget(record.substituted, read, budget, where)
