"""Looks on while Ray Tune runs trials: keeps the sweep's record, tells whoever wants to know, and says when to end."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from ray.tune import Callback, Stopper

from raylens.errors import StorageError, own_error
from raylens.storage import Store
from raylens.tune.config import BudgetConfig, SweepConfig
from raylens.tune.paths import STOP
from raylens.tune.trials import SweepRecord, TrialRecord, TrialState, write_sweep
from raylens.tune.updates import measured

__all__ = ["PARTS", "Ends", "Listens", "Watch", "used_up", "watch_with"]

WRITE_SECONDS = 3.0
LOOK_SECONDS = 5.0
PARTS = ("hours", "samples", "gpu_hours")
"""Of a budget, that are used up little by little."""
STATES: dict[str, TrialState] = {"PENDING": "waiting", "PAUSED": "waiting", "RUNNING": "running"}


class Watch:
    """Of one start of a sweep."""

    def __init__(
        self, store: Store, config: SweepConfig, record: SweepRecord, tell: Callable[[SweepRecord], None]
    ) -> None:
        self._store, self._config, self._tell = store, config, tell
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
        return self._record.model_copy(update={"trials": trials, "seconds": seconds, "heard": now})

    @property
    def why_end(self) -> str:
        """Why nothing more is to be trained; empty while there is no reason."""
        return "stopped on request" if self._stop_asked else used_up(self._config.budget, self.record)

    def began(self, trial: Any) -> None:
        """A trial has a process."""
        old = self._of(trial)
        self._trial_before[old.name] = old.seconds
        self._put(old.with_(state="running"))

    def measured(self, trial: Any, result: dict[str, Any]) -> None:
        """A trial reported an evaluation."""
        old = self._of(trial)
        seconds = self._trial_before.get(old.name, 0.0) + float(result.get("time_since_restore", 0.0))
        values = trial.config["trial"]["values"]
        self._put(measured(old, result, values, self._config.run.metrics, seconds))

    def ended(self, trial: Any) -> None:
        """A trial ended, by itself or because it was told to."""
        old = self._of(trial)
        if old.state != "finished":
            note = self.why_end or f"by {self._config.scheduler.kind}"
            self._put(old.with_(state="stopped", note=note))
        self.write()

    def failed(self, trial: Any) -> None:
        """A trial failed for good."""
        error = trial.get_pickled_error() or trial.get_error()
        own = own_error(error) if isinstance(error, BaseException) else None
        lines = [line for line in str(own or error or "lost").splitlines() if line.strip()]
        self._put(self._of(trial).with_(state="failed", note=lines[-1].strip()[:500]))
        self.write()

    def looked(self, trials: list[Any]) -> None:
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
        self._tell(record)

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
            told, gpus = (
                trial.config["trial"],
                self._config.run.resources.gpus_per_worker * self._config.run.resources.workers,
            )
            found = TrialRecord(number=told["number"], repeat=told["repeat"], values=told["values"], gpus=gpus)
            self._trials[name] = found
        return self._trials[name]

    def _put(self, trial: TrialRecord) -> None:
        self._trials[trial.name] = trial
        self._tell(self.record)


def used_up(budget: BudgetConfig, record: SweepRecord) -> str:
    """Which part of a budget is used up; empty if none is."""
    for part in PARTS:
        most = getattr(budget, part)
        if most is not None and record.used(part) >= most:
            return f"budget.{part} = {most:g} is used up"
    return ""


_watching: list[Watch] = []


def watch_with(watch: Watch) -> None:
    """Have what Ray Tune calls in this process go to ``watch``."""
    _watching[:] = [watch]


class Listens(Callback):  # type: ignore[misc] # Ray is untyped here
    """Passes on what Ray Tune calls.

    Ray Tune keeps its callbacks and stoppers by pickle and uses those again when a sweep is resumed. These have no
    state: what comes back listens for whoever watches then.
    """

    def on_trial_start(self, *, trial: Any, **_: Any) -> None:
        """See Ray Tune."""
        _watching[0].began(trial)

    def on_trial_result(self, *, trial: Any, result: dict[str, Any], **_: Any) -> None:
        """See Ray Tune."""
        _watching[0].measured(trial, result)

    def on_trial_complete(self, *, trial: Any, **_: Any) -> None:
        """See Ray Tune."""
        _watching[0].ended(trial)

    def on_trial_error(self, *, trial: Any, **_: Any) -> None:
        """See Ray Tune."""
        _watching[0].failed(trial)

    def on_step_end(self, *, trials: list[Any], **_: Any) -> None:
        """See Ray Tune."""
        _watching[0].looked(trials)


class Ends(Stopper):  # type: ignore[misc]
    """Ends a sweep whose budget is used up, or that somebody asked to end; see `Listens`."""

    def __call__(self, *_: Any) -> bool:
        """Of a single trial: never."""
        return False

    def stop_all(self) -> bool:
        """Of all."""
        return bool(_watching[0].why_end)
