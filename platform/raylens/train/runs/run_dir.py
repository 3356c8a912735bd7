"""The folder of a training run: its settings, metrics, evaluations, events and checkpoints."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Self

from raylens.config import load_yaml
from raylens.errors import NotFoundError, TrainingError
from raylens.evaluate import Goal, goal_of
from raylens.report import finite
from raylens.storage import Store
from raylens.train.checkpoint.store import Checkpoints
from raylens.train.runs.events import event_text, state_of, wanted_steps
from raylens.train.runs.jsonl import EVALUATIONS, EVENTS, METRICS, read_metrics, read_records

__all__ = ["CONFIG", "Row", "RunFiles", "RunSummary", "by_step"]

CONFIG = "config.yaml"

Row = Mapping[str, Any]


@dataclass(frozen=True)
class RunSummary:
    """A run in one line of a list."""

    name: str
    state: str
    """State of the run: one of `raylens.train.runs.events`, or `raylens.train.runs.listing.UNREADABLE`."""
    step: int | None = None
    steps: int | None = None
    """Number of steps that the run was started for, as far as its events show."""
    loss: float | None = None
    pairs_per_second: float | None = None
    checkpoint: int | None = None
    """Step of the newest complete checkpoint."""
    last_event: str = ""
    """The last event, with its time."""


@dataclass(frozen=True)
class RunFiles:
    """The files that a run has written; whatever it did not write is empty."""

    name: str
    place: str
    """The folder of the run, as people write it."""
    config: Row
    """The configuration as it was written; another version of raylens may have other keys."""
    records: Sequence[Row] = ()
    """Metrics in order of step, the later of two with one step, because a resumed run repeats steps."""
    evaluations: Sequence[Row] = ()
    """Evaluations, ordered as the records are."""
    events: Sequence[Row] = ()
    """Events in the order in which they were written."""
    checkpoints: Sequence[int] = ()
    """Steps with a complete checkpoint, ascending."""

    @classmethod
    def read(cls, store: Store) -> Self:
        """Read the folder of a run.

        Raises:
            NotFoundError: there is no run.
            ConfigError: its configuration is not YAML.
            TrainingError: a line of its records is damaged.
        """
        config = _config(store)  # first, because a folder without it is not a run
        records = by_step(read_metrics(store), store, METRICS)
        return cls.of(store, config, records, Checkpoints(store).steps())

    @classmethod
    def of(cls, store: Store, config: Row, records: Sequence[Row], checkpoints: Sequence[int]) -> Self:
        """Read the remaining files of a run, of which some have been read."""
        place = store.describe()
        return cls(
            name=PurePosixPath(place).name or PurePosixPath(store.uri).name,
            place=place,
            config=config,
            records=records,
            evaluations=by_step(read_records(store, EVALUATIONS), store, EVALUATIONS),
            events=read_records(store, EVENTS),
            checkpoints=checkpoints,
        )

    @property
    def state(self) -> str:
        """Return the state of the run; see `raylens.train.runs.events.state_of`."""
        return state_of(self.events)

    @property
    def last_step(self) -> int | None:
        """Return the step of the last record, or of the newest checkpoint if it is later."""
        return max([*(record["step"] for record in self.records[-1:]), *self.checkpoints[-1:]], default=None)

    @property
    def global_batch(self) -> int | None:
        """Return the pairs of a step, or None if the configuration does not have them."""
        batch = self.config.get("global_batch")
        return batch if isinstance(batch, int) and finite(batch) is not None and batch > 0 else None

    @property
    def metrics(self) -> list[str]:
        """Return the names of the evaluated metrics, sorted."""
        known = {key for row in self.evaluations for key, value in row.items() if finite(value) is not None}
        return sorted(known - {"step", "samples_seen", "seconds"})

    def goal(self, metric: str) -> Goal | None:
        """Return the goal of a metric from its newest evaluation, or None if it is unknown."""
        newest: Row = next((row for row in reversed(self.evaluations) if metric in row), {})
        return goal_of(metric, newest.get("goals"))

    def samples_at(self, row: Row) -> float | None:
        """Return the samples seen at a record or an evaluation, or None if they are unknown."""
        seen = finite(row.get("samples_seen"))
        if seen is None and self.global_batch is not None:
            seen = finite(row["step"] * self.global_batch)
        return seen

    def total(self, key: str) -> float | None:
        """Return a count that restarts with the workers, summed over their starts; None if no record has it."""
        whole, last, known = 0.0, 0.0, False
        for record in self.records:
            count = finite(record.get(key))
            if record.get("first_batch_seconds") is not None or (count is not None and count < last):
                whole, last = whole + last, 0.0
            if count is not None:
                last, known = count, True
        return whole + last if known else None

    def summary(self) -> RunSummary:
        """Return the run as one line of a list."""
        last = self.records[-1] if self.records else {}
        return RunSummary(
            name=self.name,
            state=self.state,
            step=self.last_step,
            steps=wanted_steps(self.events),
            loss=finite(last.get("loss")),
            pairs_per_second=finite(last.get("samples_per_second")),
            checkpoint=self.checkpoints[-1] if self.checkpoints else None,
            last_event=event_text(self.events[-1]) if self.events else "",
        )


def _config(store: Store) -> Row:
    try:
        text = store.read_text(CONFIG)
    except NotFoundError:
        raise NotFoundError(
            f"{store.describe()} is not a training run, because it has no {CONFIG}: `raylens runs list "
            "STORAGE` shows all runs"
        ) from None
    return load_yaml(text, f"{store.describe()}/{CONFIG}")


def by_step(rows: Sequence[Row], store: Store, name: str) -> list[Row]:
    """Return the rows in order of step, the later of two with one step.

    Raises:
        TrainingError: a step is not an integer.
    """
    latest: dict[int, Row] = {}
    for row in rows:
        step = row.get("step")
        if not isinstance(step, int) or isinstance(step, bool):
            raise TrainingError(
                f"{store.describe()}/{name} has a line whose step is {step!r}, not an integer: repair or delete the "
                "file, which holds no training state"
            )
        latest[step] = row
    return [latest[step] for step in sorted(latest)]
