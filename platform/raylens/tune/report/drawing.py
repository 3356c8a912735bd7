"""Marks of a plot as an SVG element: their colours are classes of ``sweep.css``, their texts are escaped.

Unlike the figures of `raylens.report.charts` these have words of the user's in them (values of a list, names of
keys) and say what a mark is when the pointer rests on it, so they are not drawn by matplotlib.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from raylens.report.axis import LONGEST, Scale, Tick

__all__ = ["LETTER", "Box", "Dot", "Frame", "Mark", "Path", "Word", "drawing"]

CROSS = "M{0:.1f} {1:.1f}m-3 -3l6 6m0 -6l-6 6"
TRIANGLE = "M{0:.1f} {1:.1f}m0 -4l4 7h-8z"
RADIUS = 3.5
SMALLEST = 0.72
"""Of a drawing's own size."""
LETTER = 6.6
"""Width of an average letter at a font size of 12."""
LINE = 4.0
"""From the middle of a text of 12 units down to its base line."""


@dataclass(frozen=True)
class Path:
    """A line through points, in units of the drawing."""

    points: Sequence[tuple[float, float]]
    kind: str
    title: str = ""

    def element(self) -> Markup:
        """As SVG."""
        if len(self.points) == 1:
            return Dot(*self.points[0], f"{self.kind} alone", self.title, radius=1.6).element()
        way = "L".join(f"{x:.1f} {y:.1f}" for x, y in self.points)
        return Markup('<path class="{}" d="M{}">{}</path>').format(self.kind, way, _title(self.title))


@dataclass(frozen=True)
class Dot:
    """A point."""

    x: float
    y: float
    kind: str
    title: str = ""
    shape: Literal["circle", "cross", "triangle"] = "circle"
    radius: float = RADIUS

    def element(self) -> Markup:
        """As SVG."""
        title = _title(self.title)
        if self.shape == "circle":
            return Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{}">{}</circle>').format(
                self.kind, self.x, self.y, self.radius, title
            )
        way = (CROSS if self.shape == "cross" else TRIANGLE).format(self.x, self.y)
        return Markup('<path class="{}" d="{}">{}</path>').format(self.kind, way, title)


@dataclass(frozen=True)
class Box:
    """A rectangle."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    title: str = ""

    def element(self) -> Markup:
        """As SVG."""
        return Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}">{}</rect>').format(
            self.kind, self.x, self.y, self.width, self.height, _title(self.title)
        )


@dataclass(frozen=True)
class Word:
    """A text; ``y`` is its middle."""

    x: float
    y: float
    text: str
    anchor: Literal["start", "middle", "end"] = "middle"
    kind: str = "tick"
    title: str = ""
    turned: bool = False
    """Reads upwards."""

    def element(self) -> Markup:
        """As SVG."""
        turn = Markup(' transform="rotate(-90 {:.1f} {:.1f})"').format(self.x, self.y) if self.turned else ""
        return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}"{}>{}{}</text>').format(
            self.kind, self.x, self.y + LINE, self.anchor, turn, self.text, _title(self.title)
        )


Mark = Path | Dot | Box | Word


def drawing(width: float, height: float, marks: Iterable[Mark]) -> Markup:
    """An ``<svg>`` element, the first mark at the back. What it shows must be said in words beside it."""
    inner = Markup("\n").join(mark.element() for mark in marks)
    # Where the page is narrower it scrolls: texts would become too small to read.
    return Markup(
        '<svg class="drawing" viewBox="0 0 {:g} {:g}" style="min-width: {:.0f}px" aria-hidden="true">\n{}\n</svg>'
    ).format(width, height, SMALLEST * width, inner)


def _title(text: str) -> Markup:
    return Markup("<title>{}</title>").format(text) if text else Markup("")


@dataclass(frozen=True)
class Frame:
    """A rectangle of a drawing with a scale along each side."""

    x_scale: Scale
    y_scale: Scale
    left: float
    top: float
    width: float
    height: float

    def at(self, x: object, y: object) -> tuple[float, float] | None:
        """Where two values are; None if one has no place."""
        across, up = self.x_scale.place(x), self.y_scale.place(y)
        return None if across is None or up is None else (self.x(across), self.y(up))

    def x(self, place: float) -> float:
        """From a place from 0 to 1 to units of the drawing."""
        return self.left + place * self.width

    def y(self, place: float) -> float:
        """Likewise, upwards."""
        return self.top + (1 - place) * self.height

    def grid(self, x_name: str = "", y_name: str = "", *, ruled: bool = True) -> Iterator[Mark]:
        """Lines across at the ticks, or short ones beside the frame; their texts and the names of both axes."""
        bottom, right = self.y(0), self.x(1)
        for tick in self.y_scale.ticks():
            y = self.y(tick.place)
            yield (
                Path([(self.left, y), (right, y)], "rule")
                if ruled
                else Path([(self.left - 4, y), (self.left, y)], "axis")
            )
            yield Word(self.left - 7, y, tick.text, "end", title=tick.full if tick.full != tick.text else "")
        yield from self._below(bottom, ruled)
        yield Path([(self.left, bottom), (right, bottom)], "axis")
        if x_name:
            yield Word(self.left + self.width / 2, bottom + 36, x_name, kind="name")
        if y_name:
            yield Word(12, self.top + self.height / 2, y_name, kind="name", turned=True)

    def _below(self, bottom: float, ruled: bool) -> Iterator[Mark]:
        for number, tick in enumerate(ticks := self._ticks_below()):
            x = self.x(tick.place)
            if self.x_scale.values is None:
                yield Path([(x, self.top if ruled else bottom + 4), (x, bottom)], "rule" if ruled else "axis")
            row = 14 * (number % 2) if self._crowded(ticks) else 0
            yield Word(x, bottom + 14 + row, tick.text, title=tick.full if tick.full != tick.text else "")

    def _ticks_below(self) -> list[Tick]:
        """With texts of a list that fit in two rows, in which they take turns."""
        share = self.width / max(1, len(self.x_scale.values or ()))
        return self.x_scale.ticks(longest=max(4, min(LONGEST, int(2 * share / LETTER) - 1)))

    def _crowded(self, ticks: Sequence[Tick]) -> bool:
        if self.x_scale.values is None:
            return False
        return any(LETTER * len(tick.text) > self.width / len(ticks) - 6 for tick in ticks)
