"""The monitor of a sweep: keeps its record while Ray Tune runs trials, and decides when the sweep ends."""

import time
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from ray.tune import Callback, Stopper

from raylens.errors import StorageError, own_error
from raylens.storage import Store
from raylens.tune.config import BudgetConfig, SweepConfig
from raylens.tune.paths import STOP
from raylens.tune.trials import SweepRecord, TrialCopy, TrialEvaluation, TrialRecord, TrialState, write_sweep

__all__ = ["PARTS", "BudgetStopper", "SweepMonitor", "TrialCallback", "add_evaluation", "exhausted_part", "set_monitor"]

WRITE_SECONDS = 3.0
CHECK_SECONDS = 5.0
PARTS = ("hours", "samples", "gpu_hours")
"""Parts of a budget that trials use up gradually."""
STATES: dict[str, TrialState] = {"PENDING": "waiting", "PAUSED": "waiting", "RUNNING": "running"}


class SweepMonitor:
    """Keeps the record of a sweep from one start to its end."""

    def __init__(
        self, store: Store, config: SweepConfig, record: SweepRecord, on_change: Callable[[SweepRecord], None]
    ) -> None:
        self._store, self._config, self._on_change = store, config, on_change
        self._record = record
        self._trials = {trial.name: trial for trial in record.trials}
        self._began, self._before = time.monotonic(), record.seconds
        self._trial_before: dict[str, float] = {}
        self._written = self._checked = 0.0
        self._stop_requested = False
        self.failure = ""
        """Error of the last write of the record; empty if it succeeded."""

    @property
    def record(self) -> SweepRecord:
        """The record in its present state."""
        trials = sorted(self._trials.values(), key=lambda trial: (trial.number, trial.repeat))
        now = datetime.now(UTC).isoformat(timespec="seconds")
        seconds = self._before + time.monotonic() - self._began
        return self._record.model_copy(update={"trials": trials, "seconds": seconds, "updated_at": now})

    @property
    def why_end(self) -> str:
        """Reason to end the sweep; empty while there is none."""
        return "stopped on request" if self._stop_requested else exhausted_part(self._config.budget, self.record)

    def on_trial_start(self, trial: Any) -> None:
        """Record that a trial has started."""
        old = self._of(trial)
        self._trial_before[old.name] = old.seconds
        self._put(old.with_(state="running"))

    def on_result(self, trial: Any, result: dict[str, Any]) -> None:
        """Record an evaluation of a trial."""
        old = self._of(trial)
        seconds = self._trial_before.get(old.name, 0.0) + float(result.get("time_since_restore", 0.0))
        values = trial.config["trial"]["values"]
        self._put(add_evaluation(old, result, values, self._config.run.metrics, seconds))

    def on_trial_end(self, trial: Any) -> None:
        """Record that a trial has finished or was stopped."""
        old = self._of(trial)
        if old.state != "finished":
            note = self.why_end or f"by {self._config.scheduler.kind}"
            self._put(old.with_(state="stopped", note=note))
        self.write()

    def on_trial_error(self, trial: Any) -> None:
        """Record that a trial has failed after all retries."""
        error = trial.get_pickled_error() or trial.get_error()
        own = own_error(error) if isinstance(error, BaseException) else None
        lines = [line for line in str(own or error or "lost").splitlines() if line.strip()]
        self._put(self._of(trial).with_(state="failed", note=lines[-1].strip()[:500]))
        self.write()

    def on_step(self, trials: list[Any]) -> None:
        """Update the states of trials after a step of Ray Tune, check for a stop request, and write the record."""
        for trial in trials:
            old, state = self._of(trial), STATES.get(trial.status)
            if state is not None and old.state != state and old.state != "finished":
                self._trials[old.name] = old.with_(state=state)
        now = time.monotonic()
        if now - self._checked >= CHECK_SECONDS:
            self._checked, self._stop_requested = now, self._stop_requested or self._stop_file_exists()
        if now - self._written >= WRITE_SECONDS:
            self.write()

    def write(self, **changes: object) -> None:
        """Write the record with changes; after an error of the store, the next write tries again."""
        self._record = self._record.model_copy(update=changes)
        self._written, record = time.monotonic(), self.record
        try:
            write_sweep(self._store, record)
            self.failure = ""
        except StorageError as error:
            self.failure = str(error)
        self._on_change(record)

    def _stop_file_exists(self) -> bool:
        try:
            return self._store.exists(STOP)
        except StorageError as error:
            self.failure = str(error)
            return False

    def _of(self, trial: Any) -> TrialRecord:
        """Return the record of a trial by its name, which a trial keeps when it becomes a copy of another."""
        name = str(trial)
        if name not in self._trials:
            fields, gpus = (
                trial.config["trial"],
                self._config.run.scale.gpus_per_worker * self._config.run.scale.workers,
            )
            self._trials[name] = TrialRecord(
                number=fields["number"], repeat=fields["repeat"], values=fields["values"], gpus=gpus
            )
        return self._trials[name]

    def _put(self, trial: TrialRecord) -> None:
        self._trials[trial.name] = trial
        self._on_change(self.record)


def exhausted_part(budget: BudgetConfig, record: SweepRecord) -> str:
    """Name the part of a budget that is used up; empty if none is."""
    for part in PARTS:
        most = getattr(budget, part)
        if most is not None and record.used(part) >= most:
            return f"budget.{part} = {most:g} is used up"
    return ""


_monitors: list[SweepMonitor] = []


def set_monitor(monitor: SweepMonitor) -> None:
    """Set the monitor that callbacks of Ray Tune in this process call."""
    _monitors[:] = [monitor]


class TrialCallback(Callback):  # type: ignore[misc] # Ray is untyped here
    """Passes the callbacks of Ray Tune to the monitor.

    Ray Tune pickles its callbacks and stoppers and reuses them when a sweep is resumed. These have no state, so that
    they call the monitor of the new start.
    """

    def on_trial_start(self, *, trial: Any, **_: Any) -> None:
        """Implement `Callback.on_trial_start`: call the monitor."""
        _monitors[0].on_trial_start(trial)

    def on_trial_result(self, *, trial: Any, result: dict[str, Any], **_: Any) -> None:
        """Implement `Callback.on_trial_result`: call the monitor."""
        _monitors[0].on_result(trial, result)

    def on_trial_complete(self, *, trial: Any, **_: Any) -> None:
        """Implement `Callback.on_trial_complete`: call the monitor."""
        _monitors[0].on_trial_end(trial)

    def on_trial_error(self, *, trial: Any, **_: Any) -> None:
        """Implement `Callback.on_trial_error`: call the monitor."""
        _monitors[0].on_trial_error(trial)

    def on_step_end(self, *, trials: list[Any], **_: Any) -> None:
        """Implement `Callback.on_step_end`: call the monitor."""
        _monitors[0].on_step(trials)


class BudgetStopper(Stopper):  # type: ignore[misc]
    """BudgetStopper a sweep whose budget is used up, or whose end was requested; see `TrialCallback`."""

    def __call__(self, *_: Any) -> bool:
        """Implement `Stopper.__call__`: never stop a single trial."""
        return False

    def stop_all(self) -> bool:
        """Implement `Stopper.stop_all`: stop when the monitor has a reason."""
        return bool(_monitors[0].why_end)


def add_evaluation(
    old: TrialRecord, result: Mapping[str, Any], values: Mapping[str, Any], metrics: Collection[str], seconds: float
) -> TrialRecord:
    """Return the record of a trial after an evaluation.

    Args:
        old: the record before the evaluation.
        result: the result of `raylens.tune.reporter`.
        values: values of the searched keys from now on.
        metrics: names of the metrics to keep.
        seconds: training time of the trial until now.
    """
    values_of = {key: float(result[key]) for key in metrics if isinstance(result.get(key), int | float)}
    newest = TrialEvaluation(step=result["steps"], samples=result["samples"], seconds=seconds, metrics=values_of)
    copies, curve = old.copies, old.curve
    if "copied_of" in result and result["run"] != old.run:
        copies = [*copies, _copied(len(curve), result, values)]
    first = copies[-1].at if copies else 0
    # A trial that resumed from an older checkpoint repeats evaluations that it has reported before.
    curve = [other for number, other in enumerate(curve) if number < first or other.step < newest.step]
    done = bool(result["of_steps"]) and newest.step >= result["of_steps"]
    return old.with_(
        curve=[*curve, newest],
        copies=copies,
        values=dict(values),
        run=result["run"],
        seconds=seconds,
        state="finished" if done else "running",
    )


def _copied(at: int, result: Mapping[str, Any], values: Mapping[str, Any]) -> TrialCopy:
    return TrialCopy(
        at=at,
        of=result["copied_of"],
        step=result["copied_step"],
        samples=result["copied_samples"],
        values=dict(values),
    )
