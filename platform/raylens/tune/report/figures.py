"""What trials did while they trained, and which keys mattered, as figures of a sweep's page."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from raylens.evaluate.metrics import finite
from raylens.report.charts import places_to_draw
from raylens.report.page import Panel
from raylens.train.runs.scores import count_text, figure_text
from raylens.tune.report.drawing import Box, Dot, Frame, Mark, Path, Word, drawing
from raylens.tune.report.importance import Importance, Importances
from raylens.report.axis import Scale, metric_scale, shortened, trials_text
from raylens.tune.report.view import Shown
from raylens.tune.trials import TrialRecord

__all__ = ["curves_panel", "importance_panel"]

WIDE = 1064.0
MOST_POINTS = 15_000
"""Of all curves together."""
ROW = 28.0
NAMES = 300.0
LONGEST_NAME = 40

Piece = list[tuple[int, float]]
"""Samples seen and the metric."""


@dataclass(frozen=True)
class _Curve:
    trial: TrialRecord
    pieces: Sequence[Piece]
    """None of them empty; what goes on from another trial's state begins a new one."""


def curves_panel(shown: Shown) -> Panel:
    """The metric against samples seen, a line a trial."""
    title = f"{shown.metric} against samples seen"
    drawn = {id(point.trial) for point in shown.drawn}
    known = [curve for trial in shown.trials if (curve := _curve(trial, shown.metric)).pieces]
    curves = [curve for curve in known if id(curve.trial) in drawn]
    if not curves:
        return Panel(title, None, "")
    frame = Frame(_samples_scale(curves), _curve_scale(curves, shown.lower), 62, 14, WIDE - 84, 330)
    # What is of interest lies on top: the best over the others.
    order = sorted(curves, key=lambda curve: curve.trial is shown.best)
    most = max(8, MOST_POINTS // len(curves))
    lines = [mark for curve in order for mark in _lines(curve, frame, shown, most)]
    marks = [*frame.grid("samples seen"), *lines]
    return Panel(title, drawing(WIDE, 396, marks), _curves_say(shown, curves, frame.y_scale))


def _curve(trial: TrialRecord, metric: str) -> _Curve:
    pieces: list[Piece] = [[]]
    begun = {copy.at for copy in trial.copies}
    for place, one in enumerate(trial.curve):
        value = finite(one.metrics.get(metric))
        if place in begun:
            pieces.append([])
        if value is not None:
            pieces[-1].append((one.samples, value))
    return _Curve(trial, [piece for piece in pieces if piece])


def _samples_scale(curves: Sequence[_Curve]) -> Scale:
    most = max(samples for curve in curves for piece in curve.pieces for samples, _ in piece)
    return Scale(0, 1.02 * max(most, 1))


def _curve_scale(curves: Sequence[_Curve], lower: bool) -> Scale:
    """With room for where trials usually begin, however far that is from where they end."""
    scale = metric_scale([value for curve in curves for piece in curve.pieces for _, value in piece], lower)
    begin = float(np.median([curve.pieces[0][0][1] for curve in curves]))
    return Scale(min(scale.low, begin), max(scale.high, begin))


def _lines(curve: _Curve, frame: Frame, shown: Shown, most: int) -> Iterator[Mark]:
    """Of one trial, and a point where it ended."""
    best = curve.trial is shown.best
    kind, title = "line best" if best else "line", shown.says(curve.trial)
    places: list[tuple[float, float]] = []
    for piece in curve.pieces:
        kept = places_to_draw(np.array([value for _, value in piece]), most)
        places = [place for at in kept if (place := frame.at(*piece[at])) is not None]
        yield Path(places, kind, title)
    if curve.trial.state != "running":
        yield Dot(*places[-1], f"end {'best' if best else curve.trial.state}", title, radius=4 if best else 2.2)


def _curves_say(shown: Shown, curves: Sequence[_Curve], scale: Scale) -> str:
    values = [[value for piece in curve.pieces for _, value in piece] for curve in curves]
    beyond = sum(any(not scale.low <= value <= scale.high for value in one) for one in values)
    says = f"{trials_text(len(curves))}, {shown.better}."
    if shown.best is not None:
        value = figure_text(shown.best.value(shown.metric))
        says += f" The best, {shown.best.name}, is in colour and ends at {value}."
    says += " A point is where a trial ended."
    if any(len(curve.pieces) > 1 for curve in curves):
        says += " A line is broken where its trial went on from a copy of another."
    if beyond:
        says += f" Far worse than the rest and drawn along the edge: {beyond:,}."
    return says + shown.thinned


def importance_panel(found: Importances | None, metric: str) -> Panel:
    """A bar a key with its interval, the most important first."""
    title = "Importance of each key"
    if found is None:
        return Panel(title, None, "")
    low, high = min(0.0, *(one.low for one in found.keys)), max(0.1, *(one.high for one in found.keys))
    room = 0.03 * (high - low)
    frame = Frame(Scale(low - room, high + room), Scale(), NAMES, 8, WIDE - NAMES - 150, ROW * len(found.keys))
    marks = [*_bar_grid(frame), *(mark for row, one in enumerate(found.keys) for mark in _bar(one, row, frame))]
    return Panel(title, drawing(WIDE, frame.y(0) + 46, marks), _importance_says(found, metric))


def _bar_grid(frame: Frame) -> Iterator[Mark]:
    for tick in frame.x_scale.ticks():
        x = frame.x(tick.place)
        yield Path([(x, frame.top), (x, frame.y(0))], "rule")
        yield Word(x, frame.y(0) + 14, tick.text)
    yield Word(frame.left + frame.width / 2, frame.y(0) + 36, "importance (0: none, 1: it alone decides)", kind="name")


def _bar(one: Importance, row: int, frame: Frame) -> Iterator[Mark]:
    y = frame.top + ROW * (row + 0.5)
    begin, mean, low, high = (frame.x(frame.x_scale.place(each) or 0.0) for each in (0.0, one.mean, one.low, one.high))
    text = _with_interval(one)
    yield Word(NAMES - 10, y, shortened(one.key, LONGEST_NAME), "end", "name", one.key)
    yield Box(min(begin, mean), y - 8, abs(mean - begin), 16, "amount", f"{one.key}: {text}")
    yield Path([(low, y), (high, y)], "whisker")
    for end in (low, high):
        yield Path([(end, y - 4), (end, y + 4)], "whisker")
    yield Word(frame.x(1) + 12, y, text, "start")


def _with_interval(one: Importance) -> str:
    """In hundredths, without a sign at what rounds to zero."""
    mean, low, high = (f"{round(each, 2) + 0.0:.2f}" for each in (one.mean, one.low, one.high))
    return f"{mean} ({low} to {high})"


def _importance_says(found: Importances, metric: str) -> str:
    sure = [f"{one.key} {_with_interval(one)}" for one in found.keys if one.low > 0]
    return (
        f"How much of the spread of the ranks of {metric} goes with each key, at {count_text(found.at.samples)} "
        "samples: the largest number that at least two thirds of the trials with a value have reached, here "
        f"{len(found.at.points):,} of {found.at.known:,}. Bars are means over bootstrap samples of the trials, lines "
        "their 90% intervals (random forest, permutation importance on trials that it has not seen). "
        + (f"Intervals above 0: {', '.join(sure)}." if sure else "No interval lies above 0.")
    )
