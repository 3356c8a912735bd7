"""Two keys of a sweep against each other: the median metric in each part of the plane, with the trials on top."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from raylens.report.page import Panel
from raylens.train.runs.scores import count_text, figure_text
from raylens.tune.comparable import Point, comparable
from raylens.tune.report.drawing import Box, Dot, Frame, Mark, Word, drawing
from raylens.tune.report.importance import Importances
from raylens.report.axis import Scale, metric_scale, shortened, trials_text
from raylens.tune.report.view import LEVELS, Shown, level_of

__all__ = ["NOTHING", "Cell", "cells", "heat_panel", "keys_of_heat"]

TEMPERATURE = ("objective.temperature", "objective.logit_scale")
RATE = "optim.peak_lr"
NOTHING = "There is no heat map: fewer than two searched keys are numbers."
WIDTH, HEIGHT = 700.0, 440.0
MANY = 150
"""Points from which they are smaller."""
FEWEST, MOST = 3, 8
"""Parts of each side."""


@dataclass(frozen=True)
class Cell:
    """A part of the plane with at least one trial."""

    column: int
    row: int
    """From the low end."""
    median: float
    trials: int


def keys_of_heat(shown: Shown, found: Importances | None) -> tuple[str, str] | None:
    """Learning rate and temperature where both are searched, else the two numbers that matter most; across and up."""
    numeric = [key for key, scale in shown.scales.items() if scale.numeric]
    temperature = next((key for key in TEMPERATURE if key in numeric), None)
    if RATE in numeric and temperature is not None:
        return RATE, temperature
    order = [one.key for one in found.keys] if found is not None else []
    ranked = sorted(numeric, key=lambda key: order.index(key) if key in order else len(order))
    return (ranked[0], ranked[1]) if len(ranked) > 1 else None


def cells(points: Sequence[Point], x_key: str, y_key: str, x_scale: Scale, y_scale: Scale) -> list[Cell]:
    """Median metrics in equal parts of both axes, of the trials to which both keys apply.

    Of each side there are `parts`; of a list one for each value.
    """
    most = parts(len(points))
    columns, rows = x_scale.bins(most), y_scale.bins(most)
    found: dict[tuple[int, int], list[float]] = {}
    for point in points:
        x, y = _places(point, x_key, y_key, x_scale, y_scale)
        if x is not None and y is not None:
            cell = min(int(x * columns), columns - 1), min(int(y * rows), rows - 1)
            found.setdefault(cell, []).append(point.metric)
    return [Cell(column, row, float(np.median(values)), len(values)) for (column, row), values in sorted(found.items())]


def parts(trials: int) -> int:
    """Of each side: about the root of the number of trials, 3 to 8."""
    return min(MOST, max(FEWEST, math.isqrt(trials)))


def heat_panel(shown: Shown, keys: tuple[str, str]) -> Panel:
    """The map; where trials can be compared at equally many samples, with their metric there."""
    x_key, y_key = keys
    title = f"{y_key} against {x_key}"
    found = comparable(shown.trials, shown.metric)
    points = [point for point in (shown.points if found is None else found.points) if set(keys) <= set(point.values)]
    frame = Frame(shown.scales[x_key], shown.scales[y_key], 76, 12, WIDTH - 232, HEIGHT - 64)
    filled = cells(points, x_key, y_key, frame.x_scale, frame.y_scale)
    if not filled:
        return Panel(title, None, "")
    colours = metric_scale([cell.median for cell in filled], shown.lower, room=0)
    boxes = [_box(cell, frame, parts(len(points)), colours, shown) for cell in filled]
    dots = [
        mark for point in sorted(points, key=shown.is_best) for mark in _dot(point, keys, frame, shown, len(points))
    ]
    marks = [*boxes, *frame.grid(x_key, y_key, ruled=False), *dots, *_colour_key(colours, shown)]
    at = "their newest values" if found is None else f"their values at {count_text(found.samples)} samples"
    return Panel(title, drawing(WIDTH, HEIGHT, marks), _says(shown, filled, at, len(points)))


def _places(point: Point, x_key: str, y_key: str, x_scale: Scale, y_scale: Scale) -> tuple[float | None, float | None]:
    if x_key not in point.values or y_key not in point.values:
        return None, None
    return x_scale.place(point.values[x_key]), y_scale.place(point.values[y_key])


def _box(cell: Cell, frame: Frame, most: int, colours: Scale, shown: Shown) -> Mark:
    columns, rows = frame.x_scale.bins(most), frame.y_scale.bins(most)
    level = level_of(cell.median, colours, shown.lower)
    says = f"median {shown.metric} {figure_text(cell.median)} of {trials_text(cell.trials)}"
    width, height = frame.width / columns, frame.height / rows
    x, y = frame.x(cell.column / columns), frame.y((cell.row + 1) / rows)
    return Box(x, y, width, height, f"cell level-{level}", says)


def _dot(point: Point, keys: tuple[str, str], frame: Frame, shown: Shown, of: int) -> Iterator[Mark]:
    place = frame.at(point.values[keys[0]], point.values[keys[1]])
    if place is not None:
        best = shown.is_best(point)
        says = f"{point.trial.name}: {shown.metric} {figure_text(point.metric)}"
        yield Dot(*place, "over best" if best else "over", says, radius=5 if best else 2.6 if of <= MANY else 1.5)


def _colour_key(colours: Scale, shown: Shown) -> Iterator[Mark]:
    """What the colours mean, at the right: the best above."""
    left, top, side = WIDTH - 130, 44.0, 22.0
    yield Word(left, top - 18, shortened(shown.metric, 17), "start", "name", shown.metric)
    for row in range(LEVELS):
        level = LEVELS - 1 - row
        yield Box(left, top + side * row, 18, side, f"cell level-{level}")
    ends = (colours.low, colours.high) if shown.lower else (colours.high, colours.low)
    for at, value in ((0.3, ends[0]), (LEVELS - 0.3, ends[1])):
        yield Word(left + 25, top + side * at, figure_text(value), "start")


def _says(shown: Shown, filled: Sequence[Cell], at: str, trials: int) -> str:
    best = (min if shown.lower else max)(filled, key=lambda cell: cell.median)
    return (
        f"Colours are medians of {shown.metric} ({shown.better}) of the trials in a part of the plane, by {at}; points "
        f"are trials ({trials:,}), the best in another colour; parts without a trial are empty. The best part has a "
        f"median of {figure_text(best.median)}, of {trials_text(best.trials)}."
    )
