"""The figures of a sweep's page: learning curves, importances, two keys together, each key, and all keys together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raylens.report import (
    WIDE,
    Axis,
    Bar,
    Cell,
    ColourKey,
    Dot,
    Kind,
    Line,
    Panel,
    Shape,
    Track,
    bar_chart,
    count_text,
    finite,
    heat_map,
    line_chart,
    metric_axis,
    number_text,
    parallel_coordinates,
    scatter_chart,
)
from raylens.tune.comparable import Point, comparable
from raylens.tune.report.importance import Importance, Importances
from raylens.tune.report.view import SweepView, level_of
from raylens.tune.trials import TrialRecord

__all__ = [
    "Part",
    "curves_panel",
    "heat_panel",
    "importance_panel",
    "keys_of_heat",
    "parallel_panel",
    "parts_of_plane",
    "scatter_panels",
    "sides",
    "track_of",
]

TEMPERATURE = ("objective.temperature", "objective.logit_scale")
RATE = "optim.peak_lr"
FEWEST, MOST = 3, 8
"""Parts of each side of a heat map."""


# Learning curves


def curves_panel(view: SweepView) -> Panel:
    """Draw the metric against samples seen, a line for each trial."""
    title = f"{view.metric} against samples seen"
    drawn = {id(point.trial) for point in view.drawn}
    lines = {trial.name: _curve(trial, view) for trial in view.trials if id(trial) in drawn}
    values = [[value for value in line.y if value is not None] for line in lines.values()]
    if not any(values):
        return Panel(title, None)
    axis = metric_axis([value for of_trial in values for value in of_trial], view.lower)
    # With room for where trials usually begin, however far that is from where they end.
    begin = float(np.median([of_trial[0] for of_trial in values if of_trial]))
    limits = (min(axis.low, begin), max(axis.high, begin))
    order = sorted(lines.values(), key=lambda line: line.role == "best")
    figure = line_chart(order, "samples seen", limits=limits, size=WIDE)
    return Panel(title, figure, _curves_say(view, list(lines.values()), values, limits))


def _curve(trial: TrialRecord, view: SweepView) -> Line:
    """Return the line of a trial, broken where it continues from another trial's state."""
    x: list[float | None] = []
    y: list[float | None] = []
    copied = {copy.at for copy in trial.copies}
    for at, measured in enumerate(trial.curve):
        value = finite(measured.metrics.get(view.metric))
        if at in copied and y:
            x.append(measured.samples)
            y.append(None)
        if value is not None:
            x.append(measured.samples)
            y.append(value)
    best = trial is view.best
    return Line(x, y, 0, view.says(trial), "best" if best else "other", ended=trial.state != "running")


def _curves_say(
    view: SweepView, lines: Sequence[Line], values: Sequence[Sequence[float]], limits: tuple[float, float]
) -> str:
    beyond = sum(any(not limits[0] <= value <= limits[1] for value in of_trial) for of_trial in values)
    says = f"{count_text(len(lines), 'trials')}, {view.better}."
    if view.best is not None:
        value = number_text(view.best.value(view.metric))
        says += f" The best, {view.best.name}, is in colour and ends at {value}."
    says += " A point is where a trial ended."
    if any(None in line.y for line in lines):
        says += " A line is broken where its trial continued from a copy of another."
    if beyond:
        says += f" {count_text(beyond, 'trials')} far worse than the rest: drawn along the edge."
    return says + view.thinned


# Importances


def importance_panel(importances: Importances | None, metric: str) -> Panel:
    """Draw a bar for each key with its interval, the most important first."""
    title = "Importance of each key"
    if importances is None:
        return Panel(title, None)
    bars = [Bar(each.key, each.mean, each.low, each.high, _with_interval(each)) for each in importances.keys]
    return Panel(
        title, bar_chart(bars, "importance (0: none, 1: it alone decides)"), _importance_says(importances, metric)
    )


def _with_interval(importance: Importance) -> str:
    """Write an importance in hundredths, without a sign at what rounds to zero."""
    mean, low, high = (f"{round(each, 2) + 0.0:.2f}" for each in (importance.mean, importance.low, importance.high))
    return f"{mean} ({low} to {high})"


def _importance_says(importances: Importances, metric: str) -> str:
    sure = [f"{each.key} {_with_interval(each)}" for each in importances.keys if each.low > 0]
    return (
        f"The bars say how much of the spread of the ranks of {metric} depends on each key, at "
        f"{count_text(importances.at.samples)} samples: the largest number that at least two thirds of the trials with "
        f"a value have reached, here {len(importances.at.points):,} of {importances.at.known:,}. Bars are means over "
        "bootstrap samples of the trials, lines their 90% intervals (random forest, permutation importance on trials "
        "that it has not seen). " + (f"Intervals above 0: {', '.join(sure)}." if sure else "No interval lies above 0.")
    )


# Two keys together


@dataclass(frozen=True)
class Part:
    """A part of the plane of two keys with at least one trial."""

    column: int
    row: int
    """Number of the part, from the low end."""
    median: float
    trials: int


def keys_of_heat(view: SweepView, importances: Importances | None) -> tuple[str, str] | None:
    """Return learning rate and temperature where both are searched, else the two numbers that matter most."""
    numeric = [key for key, axis in view.axes.items() if axis.numeric]
    temperature = next((key for key in TEMPERATURE if key in numeric), None)
    if RATE in numeric and temperature is not None:
        return RATE, temperature
    order = [each.key for each in importances.keys] if importances is not None else []
    ranked = sorted(numeric, key=lambda key: order.index(key) if key in order else len(order))
    return (ranked[0], ranked[1]) if len(ranked) > 1 else None


def sides(trials: int) -> int:
    """Return the number of parts of each side, about the root of the number of trials, from 3 to 8."""
    return min(MOST, max(FEWEST, math.isqrt(trials)))


def parts_of_plane(points: Sequence[Point], keys: tuple[str, str], axes: tuple[Axis, Axis]) -> list[Part]:
    """Return median metrics in equal parts of two axes, of the trials to which both keys apply."""
    bins = [axis.bins(sides(len(points))) for axis in axes]
    values: dict[tuple[int, int], list[float]] = {}
    for point in points:
        column, row = (_bin(point, key, axis, count) for key, axis, count in zip(keys, axes, bins, strict=True))
        if column is not None and row is not None:
            values.setdefault((column, row), []).append(point.metric)
    return [Part(*at, float(np.median(metrics)), len(metrics)) for at, metrics in sorted(values.items())]


def _bin(point: Point, key: str, axis: Axis, count: int) -> int | None:
    place = axis.place(point.values[key]) if key in point.values else None
    return None if place is None else min(int(place * count), count - 1)


def heat_panel(view: SweepView, keys: tuple[str, str]) -> Panel:
    """Draw the map of two keys, with the metric at equally many samples where trials can be compared."""
    title = f"{keys[1]} against {keys[0]}"
    at = comparable(view.trials, view.metric)
    points = [point for point in (view.points if at is None else at.points) if set(keys) <= set(point.values)]
    axes = view.axes[keys[0]], view.axes[keys[1]]
    parts = parts_of_plane(points, keys, axes)
    if not parts:
        return Panel(title, None)
    colours = metric_axis([part.median for part in parts], view.lower, margin=0)
    cells = [
        Cell(
            part.column, part.row, level_of(part.median, colours, view.lower),
            f"median {view.metric} {number_text(part.median)} of {count_text(part.trials, 'trials')}",
        )
        for part in parts
    ]  # fmt: skip
    dots = [
        Dot(
            point.values[keys[0]], point.values[keys[1]],
            f"{point.trial.name}: {view.metric} {number_text(point.metric)}", "best" if view.is_best(point) else "over",
        )
        for point in sorted(points, key=view.is_best)
    ]  # fmt: skip
    worst, best = (colours.high, colours.low) if view.lower else (colours.low, colours.high)
    bins = tuple(axis.bins(sides(len(points))) for axis in axes)
    figure = heat_map(cells, (bins[0], bins[1]), dots, axes, keys, ColourKey(view.metric, worst, best))
    return Panel(title, figure, _heat_says(view, parts, None if at is None else at.samples, len(points)))


def _heat_says(view: SweepView, parts: Sequence[Part], samples: int | None, trials: int) -> str:
    best = (min if view.lower else max)(parts, key=lambda part: part.median)
    at = "newest values" if samples is None else f"values at {count_text(samples)} samples"
    return (
        f"Colours are medians of {view.metric} ({view.better}) of the trials in a part of the plane, by their {at}. "
        f"Points are trials ({trials:,}), the best in another colour. Parts without a trial are empty. The best part "
        f"has a median of {number_text(best.median)}, of {count_text(best.trials, 'trials')}."
    )


# Each key


def scatter_panels(view: SweepView) -> list[Panel]:
    """Draw the metric against each key, in the order of the space; a key without any trial is left out."""
    return [panel for key in view.axes if (panel := _scatter(view, key)) is not None]


def _scatter(view: SweepView, key: str) -> Panel | None:
    points = sorted(
        (point for point in view.drawn if key in point.values),
        key=lambda point: (view.is_best(point), point.trial.state == "finished", _beyond(view, point)),
    )
    failed = [trial for trial in view.trials if key in trial.values and _failed(trial, view.metric)]
    worst = view.metric_axis.high if view.lower else view.metric_axis.low
    dots = [Dot(trial.values[key], worst, f"{trial.name}, failed", "failed", "cross") for trial in failed]
    dots += [_dot(view, point, key) for point in points]
    if not any(view.axes[key].place(dot.x) is not None for dot in dots):
        return None
    return Panel(
        key, scatter_chart(dots, view.axes[key], view.metric_axis), _scatter_says(view, key, points, len(failed))
    )


def _failed(trial: TrialRecord, metric: str) -> bool:
    """Return whether a trial failed without any value of the metric."""
    return trial.state == "failed" and not any(metric in measured.metrics for measured in trial.curve)


def _beyond(view: SweepView, point: Point) -> bool:
    return not view.metric_axis.low <= point.metric <= view.metric_axis.high


def _dot(view: SweepView, point: Point, key: str) -> Dot:
    kind: Kind = "best" if view.is_best(point) else "whole" if point.trial.state == "finished" else "part"
    shape: Shape = "triangle" if _beyond(view, point) else "circle"
    return Dot(point.values[key], point.metric, view.says(point.trial), kind, shape)


def _scatter_says(view: SweepView, key: str, points: Sequence[Point], failed: int) -> str:
    beyond = sum(_beyond(view, point) for point in points)
    without = sum(key not in point.values for point in view.points)
    says = [count_text(len(points), "trials")]
    if beyond:
        says.append(f"{beyond:,} far worse at the edge (triangles)")
    if failed:
        says.append(f"{failed:,} failed without a value at the edge (crosses)")
    if without:
        says.append(f"the key does not apply to {without:,}")
    return "; ".join(says) + "."


# All keys together


def parallel_panel(view: SweepView) -> Panel:
    """Draw an axis for each key and the metric, and a line for each trial in its metric's colour, the best on top."""
    title = "Parallel coordinates"
    if not view.drawn or not view.axes:
        return Panel(title, None)
    axes = [(key.rpartition(".")[2], key, axis) for key, axis in view.axes.items()]
    order = sorted(view.drawn, key=lambda point: (view.is_best(point), view.level(point.metric)))
    tracks = [track_of(view, point) for point in order]
    figure = parallel_coordinates([*axes, (view.metric, view.metric, view.metric_axis)], tracks)
    return Panel(title, figure, _parallel_says(view))


def track_of(view: SweepView, point: Point) -> Track:
    """Return a trial's line, with a gap at a key that does not apply to it."""
    places = [axis.place(point.values[key]) if key in point.values else None for key, axis in view.axes.items()]
    places.append(view.metric_axis.place(point.metric))
    return Track(places, view.level(point.metric), view.says(point.trial), view.is_best(point))


def _parallel_says(view: SweepView) -> str:
    gaps = any(key not in point.values for point in view.drawn for key in view.axes)
    return (
        f"The axes from left to right are {', '.join(view.axes)}, and {view.metric} ({view.better}). A line is a "
        "trial; the stronger its colour, the better its newest value; the best is in another colour."
        + (" A line is broken at a key that does not apply." if gaps else "")
        + view.thinned
    )
