"""Points, cells and lines across several axes, as figures of a page."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from raylens.report.axis import LONGEST, Axis
from raylens.report.charts import WIDE, isolated
from raylens.report.numbers import count_text, number_text, percent_text, printable, shortened
from raylens.report.theme import LEVELS, Canvas, canvas, paint

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "MOST_CLASSES",
    "Cell",
    "ColourKey",
    "Dot",
    "Kind",
    "Shape",
    "Track",
    "confusion_matrix",
    "heat_map",
    "parallel_coordinates",
    "scatter_chart",
]

MOST_CLASSES = 120
"""Classes above which the names of a confusion matrix would be smaller than print: a table says more."""
NUMBERED = 30
"""Classes up to which a cell of the matrix has room for its count."""
MANY = 150
"""Points from which they are smaller on a heat map."""
LETTER = 6.6
"""Width of an average letter in units of the page."""
LONGEST_NAME = 20
LONGEST_CLASS = 26
MARKS = {"circle": "o", "triangle": "^", "cross": "x"}

Kind = Literal["whole", "part", "best", "over", "failed"]
Shape = Literal["circle", "triangle", "cross"]


@dataclass(frozen=True)
class Dot:
    """A point with its title; its values lie on the axes that it is drawn with."""

    x: object
    y: object
    title: str
    kind: Kind = "whole"
    """How it looks: filled, hollow, the best, small on top of a heat map, or a cross."""
    shape: Shape = "circle"


@dataclass(frozen=True)
class Cell:
    """A part of a heat map."""

    column: int
    row: int
    """Number of the part, from the low end."""
    level: int
    title: str


@dataclass(frozen=True)
class ColourKey:
    """What the levels of a heat map mean."""

    name: str
    worst: float
    best: float


@dataclass(frozen=True)
class Track:
    """A line across the axes of parallel coordinates."""

    places: Sequence[float | None]
    """From 0 to 1 on each axis; None is a gap."""
    level: int
    title: str
    best: bool = False


def scatter_chart(dots: Sequence[Dot], x: Axis, y: Axis) -> Markup:
    """Draw points, later ones on top; what is beyond an axis lies at its end."""
    with canvas(344, 232) as picture:
        axes = picture.figure.subplots()
        axes.grid(visible=True, axis="y" if x.values else "both", linewidth=0.8)
        _scale(picture, axes, x, y)
        _put(picture, axes, dots, x, y)
        return picture.markup()


def heat_map(
    cells: Sequence[Cell], bins: tuple[int, int], dots: Sequence[Dot], axes: tuple[Axis, Axis],
    names: tuple[str, str], key: ColourKey,
) -> Markup:  # fmt: skip
    """Draw equal parts of a plane in colours of seven levels, with points on top.

    Args:
        cells: those that have a colour.
        bins: number of columns and of rows.
        dots: later ones on top.
        axes: across and up.
        names: of the axes.
        key: what is drawn beside the map.
    """
    with canvas(700, 440) as picture:
        plane, beside = picture.figure.subplots(1, 2, gridspec_kw={"width_ratios": [18, 1]})
        width, height = 1 / bins[0], 1 / bins[1]
        boxes = [(cell.column * width, cell.row * height, width, height) for cell in cells]
        _boxes(picture, plane, boxes, [(paint(f"level-{cell.level}"), 1.0) for cell in cells], [c.title for c in cells])
        _scale(picture, plane, *axes)
        plane.set(xlabel=printable(names[0]), ylabel=printable(names[1]))
        _put(picture, plane, dots, *axes, size=3.0 if len(dots) > MANY else 5.2)
        steps = [(0, level / LEVELS, 1, 1 / LEVELS) for level in range(LEVELS)]
        _boxes(picture, beside, steps, [(paint(f"level-{level}"), 1.0) for level in range(LEVELS)])
        beside.set(xlim=(0, 1), ylim=(0, 1), xticks=[])
        beside.set_title(printable(shortened(key.name, 17)), fontsize=12)
        picture.title(beside.title, key.name)
        beside.yaxis.tick_right()
        beside.set_yticks([0.3 / LEVELS, 1 - 0.3 / LEVELS], [number_text(key.worst), number_text(key.best)])
        beside.tick_params(length=0)
        beside.spines[:].set_visible(False)
        return picture.markup()


def parallel_coordinates(axes: Sequence[tuple[str, str, Axis]], tracks: Sequence[Track]) -> Markup:
    """Draw upright axes beside each other, at least two, and lines across them, later ones on top.

    Args:
        axes: short name, full name and values of each.
        tracks: a place on each axis.
    """
    with canvas(max(WIDE[0], 144 + 80 * (len(axes) - 1)), WIDE[1]) as picture:
        picture.figure.set_layout_engine("none")  # the axes are the whole figure, with space for texts within
        plane = picture.figure.add_axes((0, 0, 1, 1), xlim=(-0.35, len(axes) - 0.4), ylim=(-0.03, 1.17))
        for track in tracks:
            _draw(picture, plane, track)
        longest = min(LONGEST, int((picture.width / len(axes) - 16) / LETTER))
        for at, (name, full, axis) in enumerate(axes):
            plane.plot([at, at], [0, 1], color=paint("muted"), linewidth=0.9, zorder=1)
            # Names of neighbours take turns in two heights, for there is no room beside each other.
            text = printable(shortened(name, LONGEST_NAME))
            label = plane.text(at, 1.1 if at % 2 else 1.04, text, ha="center", fontsize=13)
            picture.title(label, full)
            for tick in axis.ticks(longest=longest):
                plane.plot(at, tick.place, marker="_", color=paint("muted"), zorder=3)
                halo = {"facecolor": (paint("paper"), 0.75), "edgecolor": "none", "pad": 0.8}
                text = printable(tick.text)
                words = plane.text(
                    at + 8 * len(axes) / picture.width, tick.place, text, va="center", color=paint("muted"), bbox=halo
                )
                if tick.full != tick.text and tick.full:
                    picture.title(words, tick.full)
        plane.set_axis_off()
        return picture.markup()


def confusion_matrix(confusion_CC: NDArray[np.integer[Any]], classes: Sequence[str]) -> Markup:
    """Draw the counts of true classes (rows) by predicted ones (columns), with the share that is right at the right.

    The depth of a colour is the square root of a cell's share of its row, which keeps single mistakes visible.
    """
    count = len(classes)
    cell = max(9.0, min(48.0, 840.0 / count))
    font = max(8.0, min(13.0, cell * 0.8))
    names = [printable(shortened(name, LONGEST_CLASS)) for name in classes]
    margin, side = 0.6 * font * max(map(len, names)) + 40, cell * count
    width, height = margin + side + (64 if count <= NUMBERED else 8), margin + side + 8
    with canvas(width, height) as picture:
        picture.figure.set_layout_engine("none")  # all sizes are known
        axes = picture.figure.add_axes((margin / width, 8 / height, side / width, side / height))
        total_C = confusion_CC.sum(axis=1)
        pairs = [(int(true), int(predicted)) for true, predicted in np.argwhere(confusion_CC)]
        depths = [math.sqrt(confusion_CC[pair] / total_C[pair[0]]) for pair in pairs]
        gap = 0.02 if count <= NUMBERED else 0.03
        _boxes(
            picture, axes,
            [(predicted + gap, true + gap, 1 - 2 * gap, 1 - 2 * gap) for true, predicted in pairs],
            [(paint("blue" if at[0] == at[1] else "wrong"), depth) for at, depth in zip(pairs, depths, strict=True)],
            [_cell_title(confusion_CC, classes, *pair) for pair in pairs],
        )  # fmt: skip
        if count <= NUMBERED:
            _number(axes, confusion_CC, pairs, depths, min(font, 0.8 * cell))
        middles = np.arange(count) + 0.5
        axes.set(xlim=(0, count), ylim=(count, 0), facecolor=paint("well"))
        axes.set(xlabel="predicted class", ylabel="true class")
        axes.set_xticks(middles, names, rotation=90)
        axes.set_yticks(middles, names)
        axes.xaxis.tick_top()
        axes.xaxis.set_label_position("top")
        axes.tick_params(length=0, labelsize=font, labelcolor=paint("ink"))
        axes.spines[:].set_visible(False)
        for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
            for label, name in zip(labels, classes, strict=True):
                picture.title(label, name)
        return picture.markup()


def _scale(picture: Canvas, axes: "Axes", x: Axis, y: Axis) -> None:
    """Put ticks where values lie, and give shortened ones their full text as a title."""
    fitting = max(4, min(LONGEST, int(2 * 0.7 * picture.width / LETTER / len(x.values)) - 1)) if x.values else LONGEST
    across, up = x.ticks(longest=fitting), y.ticks()
    crowded = x.values is not None and sum(LETTER * len(tick.text) + 8 for tick in across) > 0.8 * picture.width
    # Texts that have no room beside each other take turns in two rows.
    texts = [
        f"\n{printable(tick.text)}" if crowded and at % 2 else printable(tick.text) for at, tick in enumerate(across)
    ]
    axes.set_xticks([tick.place for tick in across], texts)
    axes.set_yticks([tick.place for tick in up], [printable(tick.text) for tick in up])
    axes.set(xlim=(0, 1), ylim=(0, 1))
    for labels, ticks in ((axes.get_xticklabels(), across), (axes.get_yticklabels(), up)):
        for label, tick in zip(labels, ticks, strict=True):
            if tick.full != tick.text:
                picture.title(label, tick.full)


def _put(picture: Canvas, axes: "Axes", dots: Sequence[Dot], x: Axis, y: Axis, size: float = 7.0) -> None:
    """Draw dots in runs of equal looks, for each look is one artist; a dot that has no place is left out."""
    placed = [(across, up, dot) for dot in dots if (across := x.place(dot.x)) is not None
              and (up := y.place(dot.y)) is not None]  # fmt: skip
    for (kind, shape), run in groupby(placed, key=lambda each: (each[2].kind, each[2].shape)):
        same = list(run)
        x_N, y_N = np.array([(across, up) for across, up, _ in same]).T
        look = _dot_look(kind, size)
        artist = axes.plot(x_N, y_N, linestyle="none", marker=MARKS[shape], clip_on=False, **look)[0]
        picture.title(artist, *(dot.title for _, _, dot in same))


def _dot_look(kind: Kind, size: float) -> dict[str, Any]:
    if kind == "failed":
        return {"markersize": 6.0, "markeredgewidth": 1.5, "color": paint("wrong")}
    if kind == "over":
        return {"markersize": size, "color": paint("ink"), "markeredgewidth": 1.0, "markeredgecolor": paint("paper")}
    face = {"whole": (paint("blue"), 0.85), "part": (paint("paper"), 0.6), "best": paint("orange")}[kind]
    edge = paint("orange" if kind == "best" else "blue")
    return {"markersize": max(size, 7.0), "markeredgewidth": 1.3, "markerfacecolor": face, "markeredgecolor": edge}


def _draw(picture: Canvas, axes: "Axes", track: Track) -> None:
    places = np.array([math.nan if place is None else place for place in track.places])
    known = np.isfinite(places)
    colour = paint("orange" if track.best else f"level-{track.level}")
    look: dict[str, Any] = {"color": colour, "linewidth": 1.2, "markersize": 3.2, "alpha": 0.6}
    if track.best:
        look |= {"linewidth": 2.6, "markersize": 7.0, "alpha": 1.0}
    marked = np.flatnonzero(known if track.best else isolated(known)).tolist()
    artist = axes.plot(np.arange(len(places)), places, marker="o", markevery=marked, zorder=2, **look)[0]
    picture.title(artist, track.title)


def _boxes(
    picture: Canvas, axes: "Axes", boxes: Sequence[tuple[float, float, float, float]],
    colours: Sequence[tuple[str, float]], titles: Sequence[str] = (),
) -> None:  # fmt: skip
    """Draw rectangles (left, bottom, width, height), each in its colour and opacity."""
    from matplotlib.collections import PolyCollection

    corners = [[(x, y), (x + w, y), (x + w, y + h), (x, y + h)] for x, y, w, h in boxes]
    artist = PolyCollection(corners, facecolors=colours, linewidths=0)
    axes.add_collection(artist, autolim=False)
    if titles:
        picture.title(artist, *titles)


def _number(
    axes: "Axes", confusion_CC: NDArray[np.integer[Any]], pairs: Sequence[tuple[int, int]], depths: Sequence[float],
    font: float,
) -> None:  # fmt: skip
    for (true, predicted), depth in zip(pairs, depths, strict=True):
        colour = paint("on-fill" if depth >= 0.7 else "ink")
        images = int(confusion_CC[true, predicted])
        text = f"{images}" if images < 10_000 else f"{images / 1000:.0f}k"
        axes.text(predicted + 0.5, true + 0.5, text, ha="center", va="center", fontsize=font * 0.9, color=colour)
    total_C = confusion_CC.sum(axis=1)
    for row, total in enumerate(total_C):
        text = percent_text(confusion_CC[row, row] / total, 0) if total else "–"
        axes.text(len(total_C) + 0.15, row + 0.5, text, va="center", color=paint("muted"))


def _cell_title(confusion_CC: NDArray[np.integer[Any]], classes: Sequence[str], true: int, predicted: int) -> str:
    images, total = int(confusion_CC[true, predicted]), int(confusion_CC[true].sum())
    return f"true: {classes[true]}; predicted: {classes[predicted]}; {images:,} of {count_text(total, 'images')}"
