"""The pages of ``raylens sweep list``, ``show`` and ``compare``: results of sweeps, for people and programs."""

import json
from collections.abc import Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from raylens.errors import ConfigError, NotFoundError, StorageError, TrainingError
from raylens.report import count_text, duration_text, number_text, value_text
from raylens.storage import Store, open_store
from raylens.tune import (
    CONFIG,
    STOP,
    Configuration,
    SweepConfig,
    SweepRecord,
    TrialRecord,
    ranked,
    read_config,
    read_or_new_sweep,
    verdict,
)
from raylens.workloads.pages.tables import Page, add_row, pairs_table

__all__ = ["compare_page", "list_page", "request_stop", "show_page", "values_text"]


def list_page(uri: str, as_json: bool) -> Page:
    """Yield a table of the sweeps of a storage.

    Raises:
        NotFoundError: the storage has no sweeps.
    """
    storage = open_store(uri)
    names = sorted({info.path.split("/")[0] for info in storage.list() if _is_config(info.path)})
    if not names:
        raise NotFoundError(f"no sweeps in {storage.describe()}: name a folder that holds sweeps, e.g. sweeps")
    rows = [_row(storage / name, name) for name in names]
    if as_json:
        yield json.dumps(rows)
        return
    table = Table(*rows[0])
    for row in rows:
        add_row(table, *(str(cell) for cell in row.values()))
    yield table


def _is_config(path: str) -> bool:
    return path.count("/") == 1 and path.endswith(f"/{CONFIG}")


def _row(store: Store, name: str) -> dict[str, Any]:
    try:
        config, record = read_config(store), read_or_new_sweep(store)
    except (StorageError, TrainingError, ConfigError) as error:
        # One damaged sweep must not hide the others.
        return {"name": name, "state": "unreadable", "trials": "", "metric": "", "best": "", "note": str(error)}
    order = ranked(record.trials, config.metric, config.goal)
    return {
        "name": name,
        "state": record.state,
        "trials": len(record.trials),
        "metric": config.metric,
        "best": number_text(order[0].mean) if order else "–",
        "note": record.why or record.updated_at,
    }


def show_page(uri: str, as_json: bool) -> Page:
    """Yield everything about a sweep except its curves.

    Raises:
        NotFoundError: there is no such sweep.
    """
    store = open_store(uri)
    config, record = read_config(store), read_or_new_sweep(store)
    order = ranked(record.trials, config.metric, config.goal)
    if as_json:
        best = order[0].best_trial.name if order else None
        yield json.dumps({"best": best, "metric": config.metric, **json.loads(record.model_dump_json())})
        return
    yield pairs_table(store.describe(), facts(config, record))
    yield trials_table(config, record, order)
    judgement = verdict(record.trials, config.metric, config.goal)
    if judgement is not None:
        yield judgement.text


def facts(config: SweepConfig, record: SweepRecord) -> dict[str, str]:
    """Return the state of a sweep as a few names and values."""
    states = ", ".join(f"{count} {state}" for state, count in record.counts().items())
    return {
        "state": f"{record.state}{f': {record.why}' if record.why else ''}",
        "trials": states or "none yet",
        "search, scheduler": f"{config.search.kind}, {config.scheduler.kind}",
        "clock": duration_text(record.seconds),
        "samples trained on": count_text(record.samples),
        "last update": record.updated_at or "–",
    }


def trials_table(config: SweepConfig, record: SweepRecord, order: Sequence[Configuration], most: int = 1000) -> Table:
    """Return a table of trials: those of the best configuration first, those without a value last."""
    table = Table("trial", "state", config.metric, "step", "values", "note")
    placed = [trial for configuration in order for trial in configuration.trials]
    others = [trial for trial in record.trials if trial not in placed]
    for trial in [*placed, *others][:most]:
        step = count_text(trial.last.step) if trial.last else "–"
        add_row(
            table,
            trial.name,
            trial.state,
            number_text(trial.value(config.metric)),
            step,
            values_text(trial),
            trial.note,
        )
    return table


def values_text(trial: TrialRecord) -> str:
    """Return a trial's values as ``peak_lr 0.0012, kind linear``, with the last part of a key if that is unique."""
    lasts = [key.rpartition(".")[2] for key in trial.values]
    names = [last if lasts.count(last) == 1 else key for key, last in zip(trial.values, lasts, strict=True)]
    return ", ".join(f"{name} {value_text(value)}" for name, value in zip(names, trial.values.values(), strict=True))


def compare_page(uris: Sequence[str], as_json: bool) -> Page:
    """Yield a table that compares sweeps: what each used, and the best of each.

    Raises:
        ConfigError: there are fewer than two sweeps, or they have different metrics.
    """
    if len(uris) < 2:
        raise ConfigError(f"{', '.join(uris) or 'nothing'} cannot be compared alone: name two sweeps or more")
    stores = [open_store(uri) for uri in uris]
    sweeps = [(read_config(store), read_or_new_sweep(store)) for store in stores]
    metrics = {config.metric for config, _ in sweeps}
    if len(metrics) > 1:
        raise ConfigError(f"the sweeps have different metrics, {', '.join(sorted(metrics))}: they cannot be compared")
    columns = [_column(config, record) for config, record in sweeps]
    if as_json:
        yield json.dumps(dict(zip((store.uri for store in stores), columns, strict=True)))
        return
    table = Table("", *(escape(config.name) for config, _ in sweeps))
    for key in columns[0]:
        add_row(table, key, *(column[key] for column in columns))
    yield table


def _column(config: SweepConfig, record: SweepRecord) -> dict[str, str]:
    order = ranked(record.trials, config.metric, config.goal)
    best = order[0] if order else None
    interval = best.interval if best else None
    return {
        **facts(config, record),
        f"best {config.metric}": number_text(best.mean) if best else "–",
        "interval (95%)": f"{number_text(interval[0])} to {number_text(interval[1])}" if interval else "–",
        "its values": values_text(best.best_trial) if best else "–",
    }


def request_stop(uri: str) -> str:
    """Ask a sweep to end, wherever it runs, and return a sentence about it.

    Raises:
        NotFoundError: there is no such sweep.
    """
    store = open_store(uri)
    read_config(store)
    record = read_or_new_sweep(store)
    if record.state in ("finished", "stopped"):
        return f"{store.describe()} has {record.state} already"
    store.write(STOP, b"")
    return f"{store.describe()} will end within seconds, if it runs; what was trained stays"
