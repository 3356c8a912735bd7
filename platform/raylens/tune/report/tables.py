"""The rows of a sweep page's tables."""

from collections.abc import Sequence
from dataclasses import dataclass

from raylens.train.runs.scores import count_text, figure_text
from raylens.tune.results import configurations, ranked
from raylens.report.axis import shortened, value_text
from raylens.tune.report.view import Shown
from raylens.tune.trials import TrialRecord

__all__ = ["CopyRow", "TrialRow", "copy_rows", "table_keys", "trial_rows"]

ABSENT = "–"
LONGEST_CELL = 80


@dataclass(frozen=True)
class TrialRow:
    """A trial as text."""

    name: str
    best: bool
    cells: Sequence[str]
    """Of `table_keys`."""
    state: str
    samples: str
    value: str
    note: str


@dataclass(frozen=True)
class CopyRow:
    """A copy as text."""

    name: str
    of: str
    step: str
    samples: str
    settings: str


def table_keys(shown: Shown) -> list[str]:
    """Searched keys, then any others that a trial has."""
    return list(dict.fromkeys([*shown.domains, *(key for trial in shown.trials for key in trial.values)]))


def trial_rows(shown: Shown) -> list[TrialRow]:
    """The best configuration first; those without a value come last, in their order."""
    keys = table_keys(shown)
    order = ranked(shown.trials, shown.metric, shown.goal)
    known = {one.number for one in order}
    order += [one for one in configurations(shown.trials, shown.metric, shown.goal) if one.number not in known]
    return [_row(trial, keys, shown) for one in order for trial in one.trials]


def _row(trial: TrialRecord, keys: Sequence[str], shown: Shown) -> TrialRow:
    return TrialRow(
        name=trial.name,
        best=trial is shown.best,
        cells=[_cell(trial, key) for key in keys],
        state=trial.state,
        samples=count_text(trial.samples),
        value=figure_text(trial.value(shown.metric)),
        note=trial.note,
    )


def _cell(trial: TrialRecord, key: str) -> str:
    return shortened(value_text(trial.values[key]), LONGEST_CELL) if key in trial.values else ABSENT


def copy_rows(trials: Sequence[TrialRecord]) -> list[CopyRow]:
    """All copies, by trial and then in time."""
    return [
        CopyRow(
            name=trial.name,
            of=copy.of,
            step=count_text(copy.step),
            samples=count_text(copy.samples),
            settings=", ".join(f"{key} = {value_text(value)}" for key, value in copy.values.items()),
        )
        for trial in trials
        for copy in trial.copies
    ]
