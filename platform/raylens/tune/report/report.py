"""The report of a sweep: one HTML file that opens anywhere and asks nothing of the network."""

from collections.abc import Sequence
from dataclasses import dataclass

from raylens.report import Panel, render_page
from raylens.tune.comparable import LEAST, cleaned
from raylens.tune.config import SweepConfig
from raylens.tune.domain import Domain
from raylens.tune.report.facts import headline, next_steps, rules, sweep_facts
from raylens.tune.report.figures import (
    curves_panel,
    heat_panel,
    importance_panel,
    keys_of_heat,
    parallel_panel,
    scatter_panels,
)
from raylens.tune.report.importance import Importances, importances
from raylens.tune.report.tables import copy_rows, table_keys, trial_rows
from raylens.tune.report.view import SweepView
from raylens.tune.trials import SweepRecord

__all__ = ["render_report"]

OPEN_ROWS = 60
"""Rows of the table of trials; the rest is folded."""
NO_HEAT = "There is no heat map: fewer than two searched keys are numbers."
NO_VALUE = "No trial has a value yet."


@dataclass(frozen=True)
class _Group:
    """A section of figures, or a sentence in their place."""

    title: str
    shape: str
    panels: Sequence[Panel]
    skipped: str = ""


def render_report(config: SweepConfig, record: SweepRecord) -> str:
    """Return one self-contained HTML page; equal input gives equal bytes. A sweep may have no trials yet."""
    record = cleaned(record)
    view = SweepView(record.trials, config.metric, config.goal, _domains(config, record))
    importance = importances(record.trials, config.metric, view.domains)
    trials = trial_rows(view)
    return render_page(
        "sweep.html.j2",
        "raylens.tune.report",
        name=config.name,
        state=record.state,
        metric=config.metric,
        better=view.better,
        headline=headline(config, view),
        facts=sweep_facts(config, record),
        rules=rules(config, record, view),
        groups=_groups(view, importance),
        keys=table_keys(view),
        trials=trials[:OPEN_ROWS],
        more=trials[OPEN_ROWS:],
        copies=copy_rows(record.trials),
        steps=next_steps(config, record, view),
    )


def _domains(config: SweepConfig, record: SweepRecord) -> dict[str, Domain]:
    steps = max(1, record.run_samples // config.run.global_batch)
    return dict(config.space_of(steps).domains)


def _groups(view: SweepView, importance: Importances | None) -> list[_Group]:
    heat = keys_of_heat(view, importance)
    few = f"Importances need {LEAST} configurations whose values after equally many samples differ."
    heat_panels = [] if heat is None else [heat_panel(view, heat)]
    empty = NO_HEAT if heat is None else "No trial has a value with both keys yet."
    return [
        _group("Learning curves", "one", [curves_panel(view)], NO_VALUE),
        _group("Which keys matter", "one", [importance_panel(importance, view.metric)], few),
        _group("Two keys together", "narrow", heat_panels, empty),
        _group("Each key", "small", scatter_panels(view), NO_VALUE),
        _group("All keys together", "one", [parallel_panel(view)], NO_VALUE),
    ]


def _group(title: str, shape: str, panels: Sequence[Panel], skipped: str) -> _Group:
    drawn = [panel for panel in panels if panel.figure is not None]
    return _Group(title, shape, drawn, "" if drawn else skipped)
