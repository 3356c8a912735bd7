"""Results for Ray Tune, made from the events of a run: each evaluation is a result."""

from typing import TYPE_CHECKING, Any

from raylens.config import RunConfig
from raylens.errors import TrainingError
from raylens.report import finite
from raylens.storage import Store
from raylens.train.checkpoint import Checkpoints
from raylens.train.loop import Checkpointed, Evaluated, RunEvent, Started
from raylens.train.runs import EVALUATIONS, read_records
from raylens.tune.checkpoint_ref import CheckpointRef
from raylens.tune.config import SweepConfig

if TYPE_CHECKING:
    from queue import SimpleQueue

__all__ = ["Reporter", "Result"]

Result = dict[str, Any]


class Reporter:
    """Reports one trial; if trials are copied, a result waits for the checkpoint of its step or the next evaluation."""

    def __init__(self, sweep: SweepConfig, run: RunConfig, folder: Store, results: "SimpleQueue[Any]") -> None:
        self._metric, self._run, self._folder, self._results = sweep.metric, run, folder, results
        self._copies = sweep.scheduler.kind == "pbt"
        self._copied = CheckpointRef.read_origin(folder)
        self._steps = 0
        self._last = 0
        self._waiting: dict[int, dict[str, float]] = {}
        self._saved: set[int] = set()

    def on_event(self, event: RunEvent) -> None:
        """Handle an event of the run."""
        if isinstance(event, Started):
            self._steps = event.steps
        elif isinstance(event, Evaluated):
            self._waiting[event.step] = {metric.name: metric.value for metric in event.metrics}
        elif isinstance(event, Checkpointed):
            self._saved.add(event.step)
        newest = max(self._waiting, default=0)
        for step in sorted(self._waiting):
            # A step has no checkpoint if the store was too slow. `end` reports the last evaluation.
            if step < self._steps and (not self._copies or step in self._saved or step < newest):
                self._put(step, self._waiting.pop(step))

    def end(self, steps: int) -> Result:
        """Return the result of the last evaluation of a run that has finished, in this start or an earlier one.

        Raises:
            TrainingError: the metric is NaN or infinite at the end.
            StorageError: the last checkpoint cannot be read.
        """
        self._steps = steps
        self._saved.add(steps)  # a run finishes only after this checkpoint
        last = next((row for row in read_records(self._folder, EVALUATIONS) if row["step"] == steps), None)
        if last is None:
            # A driver killed between the last checkpoint and the last record leaves the metrics in the checkpoint.
            last = Checkpoints(self._folder).manifest(steps).metrics
        metrics = {name: value for name in self._run.metrics if (value := finite(last.get(name))) is not None}
        if self._metric not in metrics:
            raise TrainingError(f"{self._metric} was missing, NaN or infinite at the last evaluation: the run diverged")
        return self._result(steps, metrics)

    def _put(self, step: int, metrics: dict[str, float]) -> None:
        if self._metric in metrics and step > self._last:  # else not finite, of which the run itself warns
            self._last = step
            self._results.put(self._result(step, metrics))

    def _result(self, step: int, metrics: dict[str, float]) -> Result:
        result: Result = {
            **metrics,
            "steps": step,
            "samples": step * self._run.global_batch,
            "of_steps": self._steps,
            "run": self._run.name,
            "saved": max((saved for saved in self._saved if saved <= step), default=0),
        }
        if self._copied is not None:
            copied = self._copied
            result |= {"copied_of": copied.label, "copied_step": copied.step, "copied_samples": copied.samples}
        return result
