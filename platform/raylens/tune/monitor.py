"""Looks on while Ray Tune runs trials: keeps the sweep's record, tells whoever wants to know, and says when to end."""

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
LOOK_SECONDS = 5.0
PARTS = ("hours", "samples", "gpu_hours")
"""Of a budget, that are used up little by little."""
STATES: dict[str, TrialState] = {"PENDING": "waiting", "PAUSED": "waiting", "RUNNING": "running"}


class SweepMonitor:
    """Of one start of a sweep."""

    def __init__(
        self, store: Store, config: SweepConfig, record: SweepRecord, on_change: Callable[[SweepRecord], None]
    ) -> None:
        self._store, self._config, self._on_change = store, config, on_change
        self._record = record
        self._trials = {trial.name: trial for trial in record.trials}
        self._began, self._before = time.monotonic(), record.seconds
        self._trial_before: dict[str, float] = {}
        self._written = self._looked = 0.0
        self._stop_asked = False
        self.failure = ""
        """Why the record could not be written the last time; empty if it could."""

    @property
    def record(self) -> SweepRecord:
        """As it is now."""
        trials = sorted(self._trials.values(), key=lambda trial: (trial.number, trial.repeat))
        now = datetime.now(UTC).isoformat(timespec="seconds")
        seconds = self._before + time.monotonic() - self._began
        return self._record.model_copy(update={"trials": trials, "seconds": seconds, "updated_at": now})

    @property
    def why_end(self) -> str:
        """Why nothing more is to be trained; empty while there is no reason."""
        return "stopped on request" if self._stop_asked else exhausted_part(self._config.budget, self.record)

    def on_trial_start(self, trial: Any) -> None:
        """A trial has a process."""
        old = self._of(trial)
        self._trial_before[old.name] = old.seconds
        self._put(old.with_(state="running"))

    def on_result(self, trial: Any, result: dict[str, Any]) -> None:
        """A trial reported an evaluation."""
        old = self._of(trial)
        seconds = self._trial_before.get(old.name, 0.0) + float(result.get("time_since_restore", 0.0))
        values = trial.config["trial"]["values"]
        self._put(add_evaluation(old, result, values, self._config.run.metrics, seconds))

    def on_trial_end(self, trial: Any) -> None:
        """A trial ended, by itself or because it was told to."""
        old = self._of(trial)
        if old.state != "finished":
            note = self.why_end or f"by {self._config.scheduler.kind}"
            self._put(old.with_(state="stopped", note=note))
        self.write()

    def on_trial_error(self, trial: Any) -> None:
        """A trial failed for good."""
        error = trial.get_pickled_error() or trial.get_error()
        own = own_error(error) if isinstance(error, BaseException) else None
        lines = [line for line in str(own or error or "lost").splitlines() if line.strip()]
        self._put(self._of(trial).with_(state="failed", note=lines[-1].strip()[:500]))
        self.write()

    def on_step(self, trials: list[Any]) -> None:
        """Ray Tune has taken a step."""
        for trial in trials:
            old, state = self._of(trial), STATES.get(trial.status)
            if state is not None and old.state != state and old.state != "finished":
                self._trials[old.name] = old.with_(state=state)
        now = time.monotonic()
        if now - self._looked >= LOOK_SECONDS:
            self._looked, self._stop_asked = now, self._stop_asked or self._asked()
        if now - self._written >= WRITE_SECONDS:
            self.write()

    def write(self, **changes: object) -> None:
        """Write the record, with changes to it; a store that does not take it is tried again the next time."""
        self._record = self._record.model_copy(update=changes)
        self._written, record = time.monotonic(), self.record
        try:
            write_sweep(self._store, record)
            self.failure = ""
        except StorageError as error:
            self.failure = str(error)
        self._on_change(record)

    def _asked(self) -> bool:
        try:
            return self._store.exists(STOP)
        except StorageError as error:
            self.failure = str(error)
            return False

    def _of(self, trial: Any) -> TrialRecord:
        """By its name, which stays when a trial becomes a copy of another."""
        name = str(trial)
        if name not in self._trials:
            told, gpus = trial.config["trial"], self._config.run.scale.gpus_per_worker * self._config.run.scale.workers
            found = TrialRecord(number=told["number"], repeat=told["repeat"], values=told["values"], gpus=gpus)
            self._trials[name] = found
        return self._trials[name]

    def _put(self, trial: TrialRecord) -> None:
        self._trials[trial.name] = trial
        self._on_change(self.record)


def exhausted_part(budget: BudgetConfig, record: SweepRecord) -> str:
    """Which part of a budget is used up; empty if none is."""
    for part in PARTS:
        most = getattr(budget, part)
        if most is not None and record.used(part) >= most:
            return f"budget.{part} = {most:g} is used up"
    return ""


_monitors: list[SweepMonitor] = []


def set_monitor(monitor: SweepMonitor) -> None:
    """Have what Ray Tune calls in this process go to ``monitor``."""
    _monitors[:] = [monitor]


class TrialCallback(Callback):  # type: ignore[misc] # Ray is untyped here
    """Passes on what Ray Tune calls.

    Ray Tune keeps its callbacks and stoppers by pickle and uses those again when a sweep is resumed. These have no
    state: what comes back listens for whoever watches then.
    """

    def on_trial_start(self, *, trial: Any, **_: Any) -> None:
        """See Ray Tune."""
        _monitors[0].on_trial_start(trial)

    def on_trial_result(self, *, trial: Any, result: dict[str, Any], **_: Any) -> None:
        """See Ray Tune."""
        _monitors[0].on_result(trial, result)

    def on_trial_complete(self, *, trial: Any, **_: Any) -> None:
        """See Ray Tune."""
        _monitors[0].on_trial_end(trial)

    def on_trial_error(self, *, trial: Any, **_: Any) -> None:
        """See Ray Tune."""
        _monitors[0].on_trial_error(trial)

    def on_step_end(self, *, trials: list[Any], **_: Any) -> None:
        """See Ray Tune."""
        _monitors[0].on_step(trials)


class BudgetStopper(Stopper):  # type: ignore[misc]
    """BudgetStopper a sweep whose budget is used up, or that somebody asked to end; see `TrialCallback`."""

    def __call__(self, *_: Any) -> bool:
        """Of a single trial: never."""
        return False

    def stop_all(self) -> bool:
        """Of all."""
        return bool(_monitors[0].why_end)


def add_evaluation(
    old: TrialRecord, result: Mapping[str, Any], values: Mapping[str, Any], metrics: Collection[str], seconds: float
) -> TrialRecord:
    """The record after an evaluation.

    Args:
        old: before it.
        result: as `raylens.tune.reporter` makes it.
        values: of the trial, from now on.
        metrics: names of what is kept of the result.
        seconds: of the trial's own time, by now.
    """
    found = {key: float(result[key]) for key in metrics if isinstance(result.get(key), int | float)}
    one = TrialEvaluation(step=result["steps"], samples=result["samples"], seconds=seconds, metrics=found)
    copies, curve = old.copies, old.curve
    if "copied_of" in result and result["run"] != old.run:
        copies = [*copies, _copied(len(curve), result, values)]
    first = copies[-1].at if copies else 0
    # A trial that went on from an older checkpoint reports again what it reported before.
    curve = [other for place, other in enumerate(curve) if place < first or other.step < one.step]
    done = bool(result["of_steps"]) and one.step >= result["of_steps"]
    return old.with_(
        curve=[*curve, one],
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
