"""Curves, histograms and bars, as figures of a page.

No figure hides a spike: where there are more points than a screen can show, each part of a line keeps its lowest and
its highest point. Means would hide the one step at which a loss jumped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from raylens.report.numbers import printable, short_text, shortened
from raylens.report.theme import SERIES, canvas, paint

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["DASHES", "WIDE", "Bar", "Line", "bar_chart", "histogram_chart", "isolated", "line_chart", "places_to_draw"]

WIDE = (1064.0, 380.0)
"""Size of a figure that takes the whole width of a page; others stand two in a row."""
HALF = (520.0, 250.0)
DASHES = ((), (6, 3), (2, 2))
"""Lengths of ink and of gap of the lines whose colours are there already; the first has no gaps."""
MOST_POINTS = 600
"""Points of a line, and of all lines together."""
MOST_OF_ALL = 15_000
MOST_MARKED = 40
"""Points of a line up to which each gets a mark."""
LONGEST_NAME = 40
BAR = 28.0

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """Points in order; a None is a gap, and a point without an x is left out."""

    x: Sequence[float | None]
    y: Sequence[float | None]
    number: int = 0
    """Which colour and dashes it has among its equals."""
    title: str = ""
    """What it is, when the pointer rests on it."""
    role: Literal["equal", "other", "best"] = "equal"
    """Whether it is one of a few, one of many, or the best of these."""
    ended: bool = False
    """Whether the last point of one of many is marked."""


@dataclass(frozen=True)
class Bar:
    """An amount with its interval."""

    name: str
    value: float
    low: float
    high: float
    text: str
    """The amount as it stands beside the bar."""


def line_chart(
    lines: Sequence[Line],
    x_name: str,
    *,
    level: float | None = None,
    limits: tuple[float, float] | None = None,
    above: tuple[str, Sequence[float | None]] | None = None,
    size: tuple[float, float] = HALF,
) -> Markup | None:
    """Draw lines in one plot; None if there is no point.

    Args:
        lines: may be empty; later ones lie on top.
        x_name: what is below the plot.
        level: draws a dashed line across.
        limits: ends of the vertical axis; what is beyond is drawn along its edge. Otherwise all is within.
        above: what is above the plot, and its value at each point of the first line.
        size: width and height, in units of the page.
    """
    drawn = [(line, *points) for line in lines if np.isfinite((points := _points(line))[1]).any()]
    if not drawn:
        return None
    most = max(8, min(MOST_POINTS, MOST_OF_ALL // len(drawn)))
    with canvas(*size) as picture:
        axes = picture.figure.subplots()
        axes.grid(visible=True, linewidth=0.8)
        for line, x_K, y_K in drawn:
            places = places_to_draw(y_K, most)
            y_K = y_K if limits is None else np.clip(y_K, *limits)
            artist = axes.plot(x_K[places], y_K[places], **_look(line, y_K[places]))[0]
            artist.set_clip_on(limits is None)  # an end at the edge is seen whole
            if line.title:
                picture.title(artist, line.title)
        if level is not None:
            axes.axhline(level, color=paint("muted"), linewidth=1.2, linestyle=(0, (5, 4)))
        axes.margins(x=0.02)
        axes.set(xlabel=x_name)
        if limits is not None:
            axes.set(ylim=limits, xlim=(0, None))
        elif axes.dataLim.y0 >= 0 and axes.dataLim.y1 > 0:
            axes.set_ylim(bottom=0)
        axes.xaxis.set_major_formatter(lambda value, _: short_text(value))
        if above is not None:
            _name_above(axes, lines[0].x, *above)
            picture.figure.draw_without_rendering()  # only then has the label above its place
        return picture.markup()


def histogram_chart(counts: Sequence[Sequence[float]]) -> Markup | None:
    """Draw histograms over [-1, 1] in one plot, each as shares of its own sum; None if all of them are empty.

    Args:
        counts: for each histogram, how many are in each of its equal bins.
    """
    drawn = [(number, np.asarray(bins, np.float64)) for number, bins in enumerate(counts) if sum(bins) > 0]
    if not drawn:
        return None
    with canvas(*HALF) as picture:
        axes = picture.figure.subplots()
        axes.grid(visible=True, linewidth=0.8)
        for number, count_N in drawn:
            colour = paint(SERIES[number % len(SERIES)])
            edges, share_N = np.linspace(-1.0, 1.0, len(count_N) + 1), count_N / count_N.sum()
            axes.stairs(share_N, edges, fill=True, color=colour, alpha=0.3)
            axes.stairs(share_N, edges, color=colour, linewidth=1.6)
        axes.set(xlim=(-1.0, 1.0), ylim=(0, None), xlabel="cosine")
        return picture.markup()


def bar_chart(bars: Sequence[Bar], x_name: str) -> Markup:
    """Draw bars with their intervals, the first on top; there is at least one."""
    with canvas(WIDE[0], BAR * len(bars) + 48) as picture:
        axes = picture.figure.subplots()
        axes.grid(visible=True, axis="x", linewidth=0.8)
        for row, bar in enumerate(bars):
            drawn = axes.barh(row, bar.value, height=0.57, color=paint("blue"), alpha=0.75)
            picture.title(drawn[0], f"{bar.name}: {bar.text}")
            axes.plot([bar.low, bar.high], [row, row], color=paint("ink"), linewidth=1.3, marker="|", markersize=8)
            axes.text(1.012, row, bar.text, transform=axes.get_yaxis_transform(), va="center", color=paint("muted"))
        axes.set(xlabel=x_name, ylim=(len(bars) - 0.5, -0.5), xmargin=0.03)
        axes.set_yticks(range(len(bars)), [printable(shortened(bar.name, LONGEST_NAME)) for bar in bars])
        axes.tick_params(axis="y", length=0, labelcolor=paint("ink"))
        axes.spines["left"].set_visible(False)
        for label, bar in zip(axes.get_yticklabels(), bars, strict=True):
            picture.title(label, bar.name)
        return picture.markup()


def places_to_draw(y_K: Array, most: int = MOST_POINTS) -> NDArray[np.intp]:
    """Return ascending places of at most ``most`` points that look like all: the lowest and highest of equal parts.

    A part without a number stays a gap.
    """
    if len(y_K) <= most:
        return np.arange(len(y_K))
    kept: set[int] = set()
    for places in np.array_split(np.arange(len(y_K)), most // 2):
        known = places[np.isfinite(y_K[places])]
        if len(known):
            kept |= {int(known[np.argmin(y_K[known])]), int(known[np.argmax(y_K[known])])}
        else:
            kept.add(int(places[0]))
    return np.array(sorted(kept))


def isolated(known_K: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which of the known points have no known neighbour: no line goes through them."""
    isolated_K: NDArray[np.bool_] = known_K & ~np.r_[False, known_K[:-1]] & ~np.r_[known_K[1:], False]
    return isolated_K


def _points(line: Line) -> tuple[Array, Array]:
    pairs = [(x, np.nan if y is None else y) for x, y in zip(line.x, line.y, strict=True) if x is not None]
    both = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def _look(line: Line, y_K: Array) -> dict[str, Any]:
    """Return matplotlib's properties of a line; points without neighbours are marked, or nobody would see them."""
    known_K = np.isfinite(y_K)
    marked_K = isolated(known_K)
    if line.role == "equal":
        dashes = DASHES[line.number // len(SERIES) % len(DASHES)]
        look: dict[str, Any] = {"color": paint(SERIES[line.number % len(SERIES)]), "linewidth": 2.0, "markersize": 4.0}
        look |= {"linestyle": (0, dashes) if dashes else "solid"}
        marked_K |= len(y_K) <= MOST_MARKED
    else:
        best = line.role == "best"
        look = {"color": paint("orange" if best else "muted"), "alpha": 1.0 if best else 0.6}
        look |= {"linewidth": 2.6 if best else 1.2, "markersize": 8.0 if best else 4.4, "markeredgewidth": 0.0}
        marked_K[np.flatnonzero(known_K)[-1]] |= line.ended
    return look | {"marker": "o", "markevery": np.flatnonzero(marked_K).tolist()}


def _name_above(axes: "Axes", x: Sequence[float | None], name: str, values: Sequence[float | None]) -> None:
    """Name the ticks a second time, by another value at the same points; both values begin at 0."""
    pairs = [(at, value) for at, value in zip(x, values, strict=True) if at is not None and value is not None]
    if not pairs:
        return
    x_K, value_K = np.array([(0.0, 0.0), *pairs]).T
    ticks = [tick for tick in axes.get_xticks() if 0 <= tick <= x_K[-1]]
    top = axes.secondary_xaxis("top")
    top.set_xticks(ticks, [short_text(float(np.interp(tick, x_K, value_K)), 3) for tick in ticks])
    top.set_xlabel(name)
    top.spines["top"].set_visible(False)
