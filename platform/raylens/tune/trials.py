"""The record of a sweep and its trials, and the JSON file that stores it."""

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
    """Return the name of a trial, for messages and for Ray Tune."""
    return f"t{number:03d}" + (f"r{repeat}" if repeat else "")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TrialEvaluation(_Record):
    """An evaluation of a trial at a step."""

    step: int
    samples: int
    """Samples seen at this step."""
    seconds: float
    """Training time of the trial by then, summed over its starts."""
    metrics: dict[str, float]


class TrialCopy(_Record):
    """The event that a trial continued the state of another with other settings (population-based training)."""

    at: int
    """Number of the trial's own evaluations before it."""
    of: str
    """Name of the copied trial."""
    step: int
    """Step of the copied state."""
    samples: int
    """Samples seen at this step."""
    values: dict[str, Any]
    """Values of the searched keys from then on."""


class TrialRecord(_Record):
    """The record of a trial of a sweep."""

    number: int
    """Number of its configuration, from 0."""
    repeat: int = 0
    """Number of the repeat of its configuration, from 0."""
    values: dict[str, Any]
    """Values of the searched keys that apply, by dotted path; the latest ones in population-based training."""
    state: TrialState = "waiting"
    run: str = ""
    """Name of its training run, a folder below ``runs/``."""
    curve: list[TrialEvaluation] = []
    copies: list[TrialCopy] = []
    seconds: float = 0.0
    gpus: int = 0
    """Number of GPUs that it holds while it trains."""
    note: str = ""
    """Reason why it was stopped or failed."""

    @property
    def name(self) -> str:
        """Name of the trial, for messages."""
        return trial_name(self.number, self.repeat)

    @property
    def last(self) -> TrialEvaluation | None:
        """The newest evaluation; None before the first."""
        return self.curve[-1] if self.curve else None

    @property
    def samples(self) -> int:
        """Samples trained on until the newest evaluation, without those trained by a trial it was copied from."""
        copied = {copy.at: copy.samples for copy in self.copies}
        total, before = 0, 0
        for number, evaluation in enumerate(self.curve):
            total += max(0, evaluation.samples - copied.get(number, before))
            before = evaluation.samples
        return total

    def value(self, metric: str) -> float | None:
        """Return the metric of the newest evaluation; None without one."""
        return None if self.last is None else self.last.metrics.get(metric)

    def with_(self, **changes: object) -> "TrialRecord":
        """Return a copy of the record with some fields changed."""
        return self.model_copy(update=changes)


class SweepRecord(_Record):
    """The record of a sweep and its trials."""

    format: int = FORMAT
    state: SweepState = "running"
    why: str = ""
    """Reason why the sweep ended, if not all trials are done."""
    seconds: float = 0.0
    """Wall-clock time, summed over all starts."""
    updated_at: str = ""
    """Time at which this record was made, in ISO 8601 (UTC)."""
    run_samples: int = 0
    """Samples of a run of the base configuration."""
    trials: list[TrialRecord] = []

    @property
    def samples(self) -> int:
        """Training samples, summed over all trials."""
        return sum(trial.samples for trial in self.trials)

    @property
    def gpu_hours(self) -> float:
        """GPU hours, summed over all trials."""
        return sum(trial.seconds * trial.gpus for trial in self.trials) / 3600

    def used(self, part: str) -> float:
        """Return how much of a part of the budget is used: ``hours``, ``samples`` or ``gpu_hours``."""
        return self.seconds / 3600 if part == "hours" else float(getattr(self, part))

    def counts(self) -> Mapping[str, int]:
        """Count the trials in each state."""
        states: Sequence[str] = [trial.state for trial in self.trials]
        return {state: states.count(state) for state in dict.fromkeys(sorted(states))}


def write_sweep(store: Store, record: SweepRecord) -> None:
    """Write the record of a sweep to its folder."""
    store.write(FILE, record.model_dump_json(indent=1).encode())


def read_sweep(store: Store) -> SweepRecord:
    """Read the record of a sweep.

    Raises:
        NotFoundError: the folder is not a sweep.
        TrainingError: the file is damaged or of another version.
    """
    try:
        return SweepRecord.model_validate_json(store.read(FILE))
    except NotFoundError:
        raise NotFoundError(
            f"{store.describe()} is not a sweep, it has no {FILE}: `raylens sweep list STORAGE` shows all sweeps"
        ) from None
    except ValidationError as error:
        raise TrainingError(
            f"{store.describe()}/{FILE} is damaged, or of another version of raylens ({error.error_count()} fields "
            "differ): the trials are under runs/, as training runs"
        ) from None


def read_or_new_sweep(store: Store) -> SweepRecord:
    """Read the record of a sweep; return an empty one if the sweep has not begun.

    Raises:
        TrainingError: the file is damaged or of another version.
    """
    try:
        return read_sweep(store)
    except NotFoundError:
        return SweepRecord()
