"""What a sweep's page says in words: the best, the facts, what a reader must know, and how to go on."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from raylens.report import count_text, duration_text, number_text, percent_text
from raylens.tune.config import SweepConfig
from raylens.tune.report.view import SweepView
from raylens.tune.results import verdict
from raylens.tune.trials import SweepRecord

__all__ = ["Headline", "Step", "headline", "next_steps", "rules", "sweep_facts"]

ENDED = ("stopped", "finished")


@dataclass(frozen=True)
class Headline:
    """The best configuration, with its value and settings."""

    name: str
    value: str
    what: str
    """What the value is, and how sure."""
    settings: Mapping[str, str]
    verdict: str


@dataclass(frozen=True)
class Step:
    """What somebody may do next, and its command."""

    what: str
    command: str


def headline(config: SweepConfig, view: SweepView) -> Headline | None:
    """Return the best and how sure that is; None where nothing has a value."""
    result = verdict(view.trials, config.metric, config.goal)
    if result is None:
        return None
    best, interval = result.best, result.best.interval
    what = f"{config.metric}, {view.better}"
    if interval is not None:
        low, high = (number_text(end) for end in interval)
        what += f"; mean of {len(best.results)} seeds, 95% interval {low} to {high}"
    what += f"; after {count_text(best.samples)} samples" + ("" if best.finished else ", not trained to the end")
    names = ", ".join(trial.name for trial in best.trials)
    return Headline(names, number_text(best.mean), what, view.settings(best.trials[0]), result.text)


def sweep_facts(config: SweepConfig, record: SweepRecord) -> dict[str, str]:
    """Return what a reader asks first, in this order."""
    counts = ", ".join(f"{count:,} {state}" for state, count in record.counts().items())
    facts = {
        "State": f"{record.state}{f': {record.why}' if record.why else ''}",
        "Trials": f"{len(record.trials):,}{f' ({counts})' if counts else ''}",
        "Samples trained": count_text(record.samples),
        "Saved by stopping early": _saved(record),
        "GPU hours": number_text(record.gpu_hours),
        "Wall-clock time": duration_text(record.seconds),
        "Budget used": "; ".join(_budget(config, record)),
        "Search": _search(config),
        "Scheduler": _scheduler(config),
        "Repeats": f"{config.repeats:,} of each configuration" if config.repeats > 1 else None,
        "Last change": record.updated_at or None,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _saved(record: SweepRecord) -> str | None:
    """Return what was saved against training all to the end; trials that failed or still run are not counted."""
    ended = [trial for trial in record.trials if trial.state in ENDED]
    whole = record.run_samples * len(ended)
    if not whole:
        return None
    saved = sum(max(0, record.run_samples - trial.samples) for trial in ended if trial.state == "stopped")
    return f"{count_text(saved)} samples, {percent_text(saved / whole, 0)} of training all {len(ended):,} to the end"


def _budget(config: SweepConfig, record: SweepRecord) -> Iterator[str]:
    budget = config.budget
    tried = len({trial.number for trial in record.trials})
    yield f"{tried:,} configurations of {'the grid' if config.search.kind == 'grid' else f'{budget.trials:,}'}"
    if budget.hours is not None:
        yield f"{number_text(record.seconds / 3600)} of {number_text(budget.hours)} hours"
    if budget.samples is not None:
        yield f"{count_text(record.samples)} of {count_text(budget.samples)} samples"
    if budget.gpu_hours is not None:
        yield f"{number_text(record.gpu_hours)} of {number_text(budget.gpu_hours)} GPU hours"


def _search(config: SweepConfig) -> str:
    search = config.search
    texts = {
        "random": f"random, seed {search.seed}",
        "grid": "grid: every combination",
        "tpe": f"tpe (tree-structured Parzen estimator) after {search.warm_up:,} random ones, seed {search.seed}",
    }
    return texts[search.kind]


def _scheduler(config: SweepConfig) -> str:
    scheduler = config.scheduler
    texts = {
        "fifo": "fifo: all trials are trained to the end",
        "asha": f"asha: 1 in {scheduler.reduction} trials is promoted at each rung",
        "median": "median: a trial that is worse than the median so far is stopped",
        "pbt": f"pbt: the worst {percent_text(scheduler.quantile, 0)} continue as changed copies of the best",
    }
    first = "" if scheduler.first is None else f"; the first decision is after {scheduler.first:,} {scheduler.by}"
    return texts[scheduler.kind] + first


def rules(config: SweepConfig, record: SweepRecord, view: SweepView) -> list[str]:
    """Say what keeps a reader from concluding too much."""
    notes = [f"{config.metric}: {view.better}."]
    if any(trial.state == "stopped" for trial in record.trials):
        notes.append(
            "Trials that were stopped early have values after fewer samples, which are not comparable with those of "
            "trials that continued. The importance and the map of two keys compare at equally many samples; the other "
            "figures show the newest values and how far a trial was trained."
        )
    if config.repeats == 1:
        notes.append("Each configuration was trained once, with one seed: small differences may be chance.")
    else:
        notes.append(f"Each configuration was trained up to {config.repeats:,} times, each time with another seed.")
    if any(trial.copies for trial in record.trials):
        notes.append(
            "Copies began with weights that were trained with other settings: a final setting did not make its result "
            "alone, and best.yaml from the start need not reach it."
        )
    notes.append(
        "The best of many is chosen by the data that it is judged by, so its value flatters it: measure it on data "
        "that the sweep has not seen."
    )
    return notes


def next_steps(config: SweepConfig, record: SweepRecord, view: SweepView) -> Sequence[Step]:
    """Return the commands with which a reader continues."""
    place = shlex.quote(f"{config.storage.rstrip('/')}/{config.name}")
    steps = []
    if record.state in ("interrupted", "stopped"):
        steps.append(Step("Resume the sweep", f"raylens sweep resume {place}"))
    if view.best is not None:
        steps.append(
            Step("Train the best configuration again (the file is beside this page)", "raylens train best.yaml")
        )
        steps.append(Step("Put the best model into the registry", f"raylens sweep promote {place} NAME@staging"))
    steps.append(Step("Show the sweep in the terminal", f"raylens sweep show {place}"))
    return steps
