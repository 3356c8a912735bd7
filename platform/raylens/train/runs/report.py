"""The report of a training run: one HTML file that opens anywhere and asks nothing of the network."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from raylens.config import flatten
from raylens.errors import ConfigError
from raylens.report import (
    Panel,
    count_text,
    duration_text,
    finite,
    histogram_chart,
    legend_of,
    memory_text,
    number_text,
    records_panel,
    render_page,
)
from raylens.storage import Store
from raylens.train.runs.events import time_text, wall_seconds, wanted_steps
from raylens.train.runs.run_dir import RunFiles
from raylens.train.runs.scores import best_row
from raylens.train.runs.settings import changes

__all__ = ["REPORT", "render_training_report", "run_facts", "write_training_report"]

REPORT = "training.html"
"""Beside ``report.html``, which is the evaluation's."""

PANELS: tuple[tuple[str, dict[str, str], bool], ...] = (
    ("learning rate", {"lr": ""}, True),
    ("logit scale", {"logit_scale": ""}, True),
    ("gradient norm, before clipping", {"grad_norm": ""}, True),
    ("pairs per second", {"samples_per_second": ""}, True),
    ("share of time waiting for data", {"data_wait": ""}, True),
    ("norms of embeddings", {"image_norm": "images", "text_norm": "texts"}, False),
    ("model FLOPs utilisation", {"mfu": ""}, False),
)
"""The title of a panel, its keys with the names of their lines, and whether it is there without any record."""
COSINES = ("positive_cosines", "negative_cosines")


def write_training_report(store: Store, path: str = REPORT) -> None:
    """Read a run and write its report into its folder; see `render_training_report`.

    Raises:
        NotFoundError: there is no run.
        ConfigError: its configuration is not YAML.
        TrainingError: a line of its records is damaged.
    """
    store.write(path, render_training_report(RunFiles.read(store)).encode())


def render_training_report(run: RunFiles) -> str:
    """Return one self-contained HTML page; equal input gives equal bytes. A run may have no records yet."""
    try:
        changed, unknown = {change.key: change.default for change in changes(run.config)}, ""
    except ConfigError as error:  # of an older run, whose page is drawn all the same and says so
        changed, unknown = {}, str(error)
    return render_page(
        "training.html.j2",
        "raylens.train.runs",
        name=run.name,
        state=run.state,
        facts=run_facts(run),
        panels=list(_panels(run)) if run.records else [],
        cosines=list(_cosines(run.records)),
        cosine_legend=legend_of(("matching pairs", "other pairs")),
        metrics=run.metrics,
        evaluations=_evaluations(run),
        events=[_event(event) for event in run.events],
        settings=flatten(run.config),
        changed=changed,
        unknown=unknown,
    )


def run_facts(run: RunFiles) -> dict[str, str]:
    """Return what a reader asks first, in this order; what nobody recorded is left out."""
    last = run.records[-1] if run.records else {}
    wanted, seconds = wanted_steps(run.events), wall_seconds(run.events)
    speeds = [speed for record in run.records if (speed := finite(record.get("samples_per_second"))) is not None]
    memory = [size for record in run.records if (size := finite(record.get("memory_bytes")))]
    restarts = sum(event.get("event") == "restarting" for event in run.events)
    facts = {
        "State": run.state,
        "Steps": f"{count_text(run.last_step)}{'' if wanted is None else f' of {wanted:,}'}",
        "Samples seen": count_text(run.samples_at(last)) if last else None,
        "Epochs": number_text(last["epoch"]) if finite(last.get("epoch")) is not None else None,
        "Wall-clock time": None if seconds is None else duration_text(seconds),
        "Pairs per second": f"{number_text(statistics.median(speeds))} (median)" if speeds else None,
        "Memory at most": memory_text(max(memory), 2) if memory else None,
        "Restarts": count_text(restarts) if run.events else None,
        "Skipped steps": _total(run, "skipped"),
        "Replaced samples": _total(run, "substituted"),
        "Captions cut": _total(run, "truncated"),
        "Checkpoints": f"{len(run.checkpoints)}, newest at step {run.checkpoints[-1]:,}" if run.checkpoints else "none",
    }
    return {name: value for name, value in facts.items() if value is not None}


def _total(run: RunFiles, key: str) -> str | None:
    total = run.total(key)
    return None if total is None else count_text(total)


def _panels(run: RunFiles) -> Iterator[Panel]:
    level = _nothing_learned(run)
    note = "" if level is None else f"; the dashed line is ln({run.global_batch:,}) = {level:.2f}: nothing learned yet"
    yield records_panel(run.records, "loss", {"loss": ""}, level=level, note=note, samples=True)
    for title, keys, always in PANELS:
        if always or any(finite(record.get(key)) is not None for record in run.records for key in keys):
            yield records_panel(run.records, title, keys)


def _nothing_learned(run: RunFiles) -> float | None:
    """Return the loss of a model that tells no pair of a batch from another, a landmark of the softmax loss only."""
    objective = run.config.get("objective", {})
    kind = objective.get("kind", "softmax") if isinstance(objective, Mapping) else None
    return math.log(run.global_batch) if kind == "softmax" and run.global_batch and run.global_batch > 1 else None


def _cosines(records: Sequence[Mapping[str, Any]]) -> Iterator[Panel]:
    """Yield histograms of the first, the middle and the last record that has them."""
    having = [record for record in records if all(_counts(record.get(key)) for key in COSINES)]
    if not having:
        return
    for place in sorted({0, len(having) // 2, len(having) - 1}):
        record = having[place]
        counts = [_counts(record[key]) for key in COSINES]
        means = [f"{_mean(each):.2f}" for each in counts]
        says = f"The mean is {means[0]} for matching pairs, {means[1]} for others."
        yield Panel(f"step {record['step']:,}", histogram_chart(counts), says)


def _counts(value: object) -> list[float]:
    """Return a histogram, which is empty where there is none."""
    counts = [finite(each) for each in value] if isinstance(value, list) else []
    known = [count for count in counts if count is not None and count >= 0]
    return known if len(known) == len(counts) and sum(known) > 0 else []


def _mean(counts: Sequence[float]) -> float:
    """Return the mean of a histogram, going by the middles of its bins."""
    width = 2.0 / len(counts)
    return sum(count * (width * (place + 0.5) - 1.0) for place, count in enumerate(counts)) / sum(counts)


def _evaluations(run: RunFiles) -> list[dict[str, Any]]:
    best = {metric: best_row(run.evaluations, metric, run.goal(metric)) for metric in run.metrics}
    return [
        {
            "step": f"{row['step']:,}",
            "cells": [{"text": number_text(row.get(metric)), "best": row is best[metric]} for metric in run.metrics],
        }
        for row in run.evaluations
    ]


def _event(event: Mapping[str, Any]) -> dict[str, str]:
    step = event.get("step")
    return {
        "time": time_text(event),
        "event": str(event.get("event") or ""),
        "step": f"{step:,}" if isinstance(step, int) else "",
        "text": str(event.get("text") or ""),
    }
