"""What a sweep knows of its trials, and the file in which it stands: read by people's commands and pages, no pickle."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from raylens.errors import NotFoundError, TrainingError
from raylens.storage import Store

__all__ = [
    "SweepRecord",
    "TrialCopy",
    "TrialEvaluation",
    "TrialRecord",
    "TrialState",
    "read_or_new_sweep",
    "read_sweep",
    "trial_name",
    "write_sweep",
]

FILE = "sweep.json"
FORMAT = 1

TrialState = Literal["waiting", "running", "stopped", "finished", "failed"]
SweepState = Literal["running", "interrupted", "stopped", "finished"]


def trial_name(number: int, repeat: int) -> str:
    """Of a trial, for people and for Ray Tune."""
    return f"t{number:03d}" + (f"r{repeat}" if repeat else "")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TrialEvaluation(_Record):
    """An evaluation of a trial."""

    step: int
    samples: int
    """Seen by then."""
    seconds: float
    """Of the trial's own time, all its starts together."""
    metrics: dict[str, float]


class TrialCopy(_Record):
    """A trial went on from the state of another, with other settings (population-based training)."""

    at: int
    """Behind so many of the trial's own evaluations."""
    of: str
    """Name of the other trial."""
    step: int
    """Of the state that was copied."""
    samples: int
    """Seen by then."""
    values: dict[str, Any]
    """From then on."""


class TrialRecord(_Record):
    """One training run of a sweep."""

    number: int
    """Of its configuration, from 0."""
    repeat: int = 0
    """Which of the configuration's repeats, from 0."""
    values: dict[str, Any]
    """Of the searched keys that apply, by dotted path; with population-based training the latest."""
    state: TrialState = "waiting"
    run: str = ""
    """Name of the folder of its training run, below ``runs/``."""
    curve: list[TrialEvaluation] = []
    copies: list[TrialCopy] = []
    seconds: float = 0.0
    gpus: int = 0
    """Held while it trains."""
    note: str = ""
    """Why it was stopped or failed."""

    @property
    def name(self) -> str:
        """For people."""
        return trial_name(self.number, self.repeat)

    @property
    def last(self) -> TrialEvaluation | None:
        """The newest evaluation."""
        return self.curve[-1] if self.curve else None

    @property
    def samples(self) -> int:
        """Trained on, as far as it was measured; what was copied from another trial was trained by that one."""
        begun = {copy.at: copy.samples for copy in self.copies}
        total, before = 0, 0
        for place, one in enumerate(self.curve):
            total += max(0, one.samples - begun.get(place, before))
            before = one.samples
        return total

    def value(self, metric: str) -> float | None:
        """Of the newest evaluation."""
        return None if self.last is None else self.last.metrics.get(metric)

    def with_(self, **changes: object) -> "TrialRecord":
        """A copy with some fields changed."""
        return self.model_copy(update=changes)


class SweepRecord(_Record):
    """The state of a sweep."""

    format: int = FORMAT
    state: SweepState = "running"
    why: str = ""
    """It ended."""
    seconds: float = 0.0
    """Of the clock, all starts together."""
    updated_at: str = ""
    """When this was written, in ISO 8601 (UTC)."""
    run_samples: int = 0
    """Of a run of the base configuration."""
    trials: list[TrialRecord] = []

    @property
    def samples(self) -> int:
        """Trained on, over all trials."""
        return sum(trial.samples for trial in self.trials)

    @property
    def gpu_hours(self) -> float:
        """Over all trials."""
        return sum(trial.seconds * trial.gpus for trial in self.trials) / 3600

    def used(self, part: str) -> float:
        """Of a part of the budget, by its name there: hours, samples or gpu_hours."""
        return self.seconds / 3600 if part == "hours" else float(getattr(self, part))

    def counts(self) -> Mapping[str, int]:
        """How many trials are in each state that there is."""
        states: Sequence[str] = [trial.state for trial in self.trials]
        return {state: states.count(state) for state in dict.fromkeys(sorted(states))}


def write_sweep(store: Store, record: SweepRecord) -> None:
    """Write the file, whole."""
    store.write(FILE, record.model_dump_json(indent=1).encode())


def read_sweep(store: Store) -> SweepRecord:
    """Read it.

    Raises:
        NotFoundError: there is no sweep.
        TrainingError: the file is damaged, or of another version.
    """
    try:
        return SweepRecord.model_validate_json(store.read(FILE))
    except NotFoundError:
        raise NotFoundError(
            f"{store.describe()} is no sweep, it has no {FILE}: `raylens sweep list STORAGE` shows all sweeps"
        ) from None
    except ValidationError as error:
        raise TrainingError(
            f"{store.describe()}/{FILE} is damaged, or of another version of raylens ({error.error_count()} fields "
            "differ): the trials themselves are under runs/, each a training run"
        ) from None


def read_or_new_sweep(store: Store) -> SweepRecord:
    """Likewise; of a sweep that has not begun, an empty one.

    Raises:
        TrainingError: see `read_sweep`.
    """
    try:
        return read_sweep(store)
    except NotFoundError:
        return SweepRecord()
