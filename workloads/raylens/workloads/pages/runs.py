"""The pages of ``raylens runs``: what training runs have written, for people and programs."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from raylens.config import flatten
from raylens.errors import ConfigError, NotFoundError
from raylens.report import count_text, number_text
from raylens.storage import open_store
from raylens.train.runs import (
    CONFIG,
    RunFiles,
    best_row,
    changes,
    event_text,
    last_row,
    list_runs,
    render_training_report,
    run_facts,
)
from raylens.workloads.pages.run_comparison import Comparison
from raylens.workloads.pages.tables import Page, add_row, pairs_table

__all__ = ["compare", "list_page", "open_run", "show_page", "write_page"]

LAST_EVENTS = 10
LONG = ("sample_hashes", "positive_cosines", "negative_cosines")
"""Keys of a record whose values are too long to print."""


def open_run(uri: str, name: str | None = None) -> RunFiles:
    """Read a run, named by the URI of its folder, or by its storage and name.

    Raises:
        NotFoundError: there is no such run.
    """
    store = open_store(uri)
    return RunFiles.read(store if name is None else store / name)


def list_page(uri: str, as_json: bool) -> Page:
    """Yield a table of the runs of a storage.

    Raises:
        NotFoundError: the storage has no runs.
    """
    storage = open_store(uri)
    runs = list_runs(storage)
    if not runs:
        if storage.exists(CONFIG):
            raise NotFoundError(f"{storage.describe()} is a run itself: look at it with `raylens runs show {uri}`")
        raise NotFoundError(
            f"no training runs in {storage.describe()}: name a folder that holds runs, as `storage` of a run's "
            "configuration has it, e.g. runs"
        )
    if as_json:
        yield _json([asdict(run) for run in runs])
        return
    table = Table("name", "state", "step", "loss", "pairs/s", "checkpoint", "last event (UTC)")
    for run in runs:
        step = count_text(run.step) if run.steps is None else f"{count_text(run.step)} of {run.steps:,}"
        numbers = (step, number_text(run.loss), number_text(run.pairs_per_second), count_text(run.checkpoint))
        add_row(table, run.name, run.state, *numbers, run.last_event)
    yield table


def show_page(run: RunFiles, as_json: bool) -> Page:
    """Yield everything about a run except its curves."""
    if as_json:
        yield _json(_as_dict(run))
        return
    yield pairs_table(run.place, run_facts(run))
    yield from _settings(run)
    if run.records:
        record = {key: _value(value) for key, value in run.records[-1].items() if key not in LONG}
        yield pairs_table("last record", record)
    else:
        yield "no records yet"
    if run.metrics:
        table = Table("evaluation", "best", "at step", "last")
        for metric, (best, last) in _scores(run).items():
            add_row(
                table, metric, number_text(best.get(metric)), count_text(best.get("step")), number_text(last[metric])
            )
        yield table
    if run.checkpoints:
        yield f"checkpoints at steps {', '.join(f'{step:,}' for step in run.checkpoints)}"
    yield from map(event_text, run.events[-LAST_EVENTS:])


def write_page(run: RunFiles, out: Path) -> None:
    """Write the page of curves that a run gets when it ends, for the run up to now."""
    out.write_text(render_training_report(run), encoding="utf-8")


def compare(uris: Sequence[str], out: Path, as_json: bool) -> Page:
    """Yield tables that compare runs, and write the page of their curves to ``out``.

    Raises:
        ConfigError: there are fewer than two runs, or a run is named twice.
        NotFoundError: there is no such run.
        TrainingError: a run has no records.
    """
    if len(uris) < 2:
        raise ConfigError(f"{', '.join(uris) or 'nothing'} cannot be compared alone: name two runs or more")
    comparison = Comparison([open_run(uri) for uri in uris])
    out.write_text(comparison.page(), encoding="utf-8")
    if as_json:
        places = [run.place for run in comparison.runs]
        tables = {"settings": comparison.settings, "figures": comparison.figures}
        yield _json({"runs": places, **tables, "page": str(out)})
        return
    for title, rows in (("figure", comparison.figures), ("setting", comparison.settings)):
        table = Table(title, *map(escape, comparison.names))
        for key, cells in rows.items():
            add_row(table, key, *cells)
        yield table if table.rows else "the runs have equal settings"
    yield f"curves: {out}"


def _settings(run: RunFiles) -> Page:
    try:
        table = Table("changed setting", "value", "default")
        for change in changes(run.config):
            add_row(table, change.key, change.value, change.default or "")
        yield table
    except ConfigError as error:
        yield f"this version of raylens does not take the run's settings, so all are shown: {error}"
        yield pairs_table("setting", flatten(run.config))


def _as_dict(run: RunFiles) -> dict[str, Any]:
    try:
        changed = {change.key: change.value for change in changes(run.config)}
    except ConfigError:
        changed = None  # null: nobody can tell; the whole configuration stands beside it
    scores = {
        metric: {"goal": run.goal(metric), "best": best.get(metric), "step": best.get("step"), "last": last[metric]}
        for metric, (best, last) in _scores(run).items()
    }
    return {
        **asdict(run.summary()),
        "folder": run.place,
        "facts": run_facts(run),
        "changed": changed,
        "config": run.config,
        "record": run.records[-1] if run.records else None,
        "evaluations": scores,
        "checkpoints": run.checkpoints,
        "events": run.events[-LAST_EVENTS:],
    }


def _scores(run: RunFiles) -> dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Return for each metric the evaluation with its best value (empty if its goal is unknown), and the last one."""
    scores: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {}
    for metric in run.metrics:
        best, last = best_row(run.evaluations, metric, run.goal(metric)), last_row(run.evaluations, metric)
        if last is not None:
            scores[metric] = (best or {}, last)
    return scores


def _value(value: object) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number_text(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _json(value: object) -> str:
    """Return one line of JSON, in which NaN and infinity are null."""
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False, default=str)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
