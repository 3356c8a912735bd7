"""The report of a sweep: one HTML file that opens anywhere and asks nothing of the network."""

from collections.abc import Sequence
from dataclasses import dataclass

from raylens.report.page import Panel, render_page
from raylens.tune.comparable import LEAST, cleaned
from raylens.tune.config import SweepConfig
from raylens.tune.domain import Domain
from raylens.tune.report.importance import Importances, importances
from raylens.tune.report.view import Shown
from raylens.tune.report.facts import going_on, headline, rules, sweep_facts
from raylens.tune.report.figures import curves_panel, importance_panel
from raylens.tune.report.heat import NOTHING, heat_panel, keys_of_heat
from raylens.tune.report.parallel import parallel_panel
from raylens.tune.report.scatter import scatter_panels
from raylens.tune.report.tables import copy_rows, table_keys, trial_rows
from raylens.tune.trials import SweepRecord

__all__ = ["render_report"]

OPEN_ROWS = 60
"""Of the table of trials; the rest is folded."""
NO_VALUE = "No trial has a value yet."


@dataclass(frozen=True)
class _Group:
    """A section of figures, or a sentence in their place."""

    title: str
    shape: str
    panels: Sequence[Panel]
    skipped: str = ""


def render_report(config: SweepConfig, record: SweepRecord) -> str:
    """One self-contained HTML page; equal input gives equal bytes. A sweep may have no trials yet."""
    record = cleaned(record)
    shown = Shown(record.trials, config.metric, config.goal, _domains(config, record))
    found = importances(record.trials, config.metric, shown.domains)
    trials = trial_rows(shown)
    return render_page(
        "sweep.html.j2",
        "raylens.tune",
        name=config.name,
        state=record.state,
        metric=config.metric,
        better=shown.better,
        headline=headline(config, shown),
        facts=sweep_facts(config, record),
        rules=rules(config, record, shown),
        groups=_groups(shown, found),
        keys=table_keys(shown),
        trials=trials[:OPEN_ROWS],
        more=trials[OPEN_ROWS:],
        copies=copy_rows(record.trials),
        steps=going_on(config, record, shown),
    )


def _domains(config: SweepConfig, record: SweepRecord) -> dict[str, Domain]:
    steps = max(1, record.run_samples // config.run.global_batch)
    return dict(config.space_of(steps).domains)


def _groups(shown: Shown, found: Importances | None) -> list[_Group]:
    heat = keys_of_heat(shown, found)
    few = f"It cannot be told: that takes {LEAST} configurations with values after equally many samples that differ."
    heat_panels = [] if heat is None else [heat_panel(shown, heat)]
    empty = NOTHING if heat is None else "No trial has a value with both keys yet."
    return [
        _group("Learning curves", "one", [curves_panel(shown)], NO_VALUE),
        _group("Which keys matter", "one", [importance_panel(found, shown.metric)], few),
        _group("Two keys together", "narrow", heat_panels, empty),
        _group("Each key", "small", scatter_panels(shown), NO_VALUE),
        _group("All keys together", "one", [parallel_panel(shown)], NO_VALUE),
    ]


def _group(title: str, shape: str, panels: Sequence[Panel], skipped: str) -> _Group:
    drawn = [panel for panel in panels if panel.figure is not None]
    return _Group(title, shape, drawn, "" if drawn else skipped)
