"""The rows of a sweep page's tables."""

from collections.abc import Sequence
from dataclasses import dataclass

from raylens.report import ABSENT, count_text, number_text, shortened, value_text
from raylens.tune.report.view import SweepView
from raylens.tune.results import configurations, ranked
from raylens.tune.trials import TrialRecord

__all__ = ["CopyRow", "TrialRow", "copy_rows", "table_keys", "trial_rows"]

LONGEST_CELL = 80


@dataclass(frozen=True)
class TrialRow:
    """A trial as texts, a row of the table."""

    name: str
    best: bool
    cells: Sequence[str]
    """Values of the keys of `table_keys`."""
    state: str
    samples: str
    value: str
    note: str


@dataclass(frozen=True)
class CopyRow:
    """A copy of another trial's state as texts, a row of the table."""

    name: str
    of: str
    step: str
    samples: str
    settings: str


def table_keys(view: SweepView) -> list[str]:
    """Return the searched keys, then any others that a trial has."""
    return list(dict.fromkeys([*view.domains, *(key for trial in view.trials for key in trial.values)]))


def trial_rows(view: SweepView) -> list[TrialRow]:
    """Return the trials, the best configuration first; those without a value come last, in their order."""
    keys = table_keys(view)
    order = ranked(view.trials, view.metric, view.goal)
    known = {configuration.number for configuration in order}
    order += [each for each in configurations(view.trials, view.metric, view.goal) if each.number not in known]
    return [_row(trial, keys, view) for configuration in order for trial in configuration.trials]


def _row(trial: TrialRecord, keys: Sequence[str], view: SweepView) -> TrialRow:
    return TrialRow(
        name=trial.name,
        best=trial is view.best,
        cells=[_cell(trial, key) for key in keys],
        state=trial.state,
        samples=count_text(trial.samples),
        value=number_text(trial.value(view.metric)),
        note=trial.note,
    )


def _cell(trial: TrialRecord, key: str) -> str:
    return shortened(value_text(trial.values[key]), LONGEST_CELL) if key in trial.values else ABSENT


def copy_rows(trials: Sequence[TrialRecord]) -> list[CopyRow]:
    """Return all copies, by trial and then in time."""
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
