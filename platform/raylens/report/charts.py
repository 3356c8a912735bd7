"""Curves and histograms of training runs as SVGs without a word of the run's own: names stand in the page around."""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from raylens.report.theme import CLEANING, INK, MOST_POINTS, MUTED, NO_METADATA, RULE, VARIABLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "DASHES", "Line", "histogram_svg", "lines_svg", "places_to_draw", "short_text"]

COLOURS = 8
"""Colours of lines that the page has, as ``--series-0`` and so on; further lines take them again, dashed."""
DASHES = ((), (6, 3), (2, 2))
"""Lengths of ink and of gap; the first is a line without gaps."""

# As in the figure of an evaluation: matplotlib wants colours, the page wants variables.
SERIES = {f"#0a0b1{number}": f"--series-{number}" for number in range(COLOURS)}
MOST_MARKED = 40


@dataclass(frozen=True)
class Line:
    """Points of one run, in order."""

    x: Sequence[float | None]
    y: Sequence[float | None]
    """None is a gap."""
    number: int = 0
    """Which colour and dashes it has."""


def lines_svg(lines: Sequence[Line], x_name: str, level: float | None = None) -> str | None:
    """Lines in one plot, as an ``<svg>`` element; None if there is no point.

    Args:
        lines: may be empty.
        x_name: what is below the plot; no text of a user's.
        level: draws a dashed line across.
    """
    drawn = [one for one in map(_points, lines) if np.isfinite(one[1]).any()]
    if not drawn:
        return None
    with _axes() as (figure, axes):
        for x, y, number in drawn:
            _draw(axes, x, y, number)
        if level is not None:
            axes.axhline(level, color=MUTED, linewidth=1.2, linestyle=(0, (5, 4)))
        axes.margins(x=0.02)
        if axes.dataLim.y0 >= 0 and axes.dataLim.y1 > 0:
            axes.set_ylim(bottom=0)
        axes.set_xlabel(x_name)
        axes.xaxis.set_major_formatter(lambda value, _: short_text(value))
        return _themed(figure)


def histogram_svg(counts: Sequence[Sequence[float]]) -> str | None:
    """Histograms over [-1, 1] in one plot, each as shares of its own sum; None if all of them are empty.

    Args:
        counts: of each histogram, how many are in each of its equal bins.
    """
    drawn = [(number, np.asarray(one, dtype=np.float64)) for number, one in enumerate(counts) if sum(one) > 0]
    if not drawn:
        return None
    with _axes() as (figure, axes):
        for number, count_N in drawn:
            edges = np.linspace(-1.0, 1.0, len(count_N) + 1)
            share_N = count_N / count_N.sum()
            axes.stairs(share_N, edges, fill=True, color=_colour(number), alpha=0.3)
            axes.stairs(share_N, edges, color=_colour(number), linewidth=1.6)
        axes.set_xlim(-1.0, 1.0)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("cosine")
        return _themed(figure)


def _points(line: Line) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Without the points that have no place."""
    pairs = [(x, np.nan if y is None else y) for x, y in zip(line.x, line.y, strict=True) if x is not None]
    both = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    return both[:, 0], both[:, 1], line.number


def places_to_draw(y_K: NDArray[np.float64], most: int = MOST_POINTS) -> NDArray[np.intp]:
    """Ascending places of at most ``most`` points that look like all of them: of equal runs, the lowest and highest.

    A mean would hide the one step at which the loss jumped. A run without a number stays a gap.
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


def _draw(axes: "Axes", x_K: NDArray[np.float64], y_K: NDArray[np.float64], number: int) -> None:
    colour, dashes = _colour(number), DASHES[number // COLOURS % len(DASHES)]
    places = places_to_draw(y_K)
    x_K, y_K = x_K[places], y_K[places]
    axes.plot(
        x_K,
        y_K,
        color=colour,
        linewidth=1.8,
        linestyle=(0, dashes) if dashes else "solid",
        marker="o" if len(x_K) <= MOST_MARKED else None,
        markersize=3.5,
    )


def _colour(number: int) -> str:
    return list(SERIES)[number % COLOURS]


@contextmanager
def _axes() -> "Iterator[tuple[Figure, Axes]]":
    import matplotlib as mpl
    from matplotlib.figure import Figure

    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "raylens",
        "font.size": 11,
        "axes.formatter.useoffset": False,
        "axes.labelcolor": INK,
        "axes.edgecolor": MUTED,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "text.color": INK,
        "grid.color": RULE,
    }
    with mpl.rc_context(settings):
        figure = Figure(figsize=(6.2, 3.0), layout="constrained")
        figure.patch.set_alpha(0.0)
        axes = figure.subplots()
        axes.grid(visible=True, linewidth=0.8)
        axes.patch.set_alpha(0.0)
        axes.spines[["top", "right"]].set_visible(False)
        yield figure, axes


def short_text(number: float) -> str:
    """A number as it is written at a tick: ``1.5k``, ``2M``."""
    for size, suffix in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.4g}{suffix}"
    return f"{number:.4g}"


def _themed(figure: "Figure") -> str:
    """The figure as an element of the page: its colours become variables, its fonts those of the page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=NO_METADATA)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    for colour, variable in (VARIABLES | SERIES).items():
        svg = svg.replace(colour, f"var({variable})")
    for pattern, replacement in CLEANING:
        svg = re.sub(pattern, replacement, svg)
    return svg
