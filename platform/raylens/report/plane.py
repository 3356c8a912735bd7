"""The confusion matrix as an SVG: readable at ten classes and at a hundred."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from markupsafe import Markup

from raylens.evaluate.classification import ZeroShotResult
from raylens.evaluate.pages import render

__all__ = ["MOST_CLASSES", "confusion_svg"]

MOST_CLASSES = 120
"""Above this names would be smaller than print: the table of confusions says more."""

WIDEST = 1040
"""Units of the drawing that the page shows at their size."""
LONGEST_NAME = 26
GLYPH = 0.56
"""Width of an average glyph in units of the font size."""


@dataclass(frozen=True)
class _Cell:
    x: float
    y: float
    opacity: float
    diagonal: bool
    text: str
    title: str


@dataclass(frozen=True)
class _Name:
    at: float
    short: str
    full: str
    accuracy: str


@dataclass(frozen=True)
class _Layout:
    """Sizes of one matrix of ``classes``, all in units of the drawing."""

    classes: int
    longest: int

    @property
    def numbered(self) -> bool:
        """Whether a cell has room for its count."""
        return self.classes <= 30

    @property
    def font(self) -> float:
        return max(8.0, min(13.0, self.cell * 0.8))

    @property
    def cell(self) -> float:
        return max(9.0, min(48.0, 840.0 / self.classes))

    @property
    def margin(self) -> float:
        """Room for names, at the left and above."""
        return GLYPH * self.font * self.longest + 34

    @property
    def side(self) -> float:
        return self.cell * self.classes

    @property
    def right(self) -> float:
        """Room for the accuracy of each row."""
        return 64.0 if self.numbered else 8.0


def confusion_svg(result: ZeroShotResult) -> Markup:
    """Rows are true classes, columns predictions; the deeper a cell's colour, the larger its share of the row."""
    longest = max(len(_shortened(name)) for name in result.classes)
    layout = _Layout(len(result.classes), longest)
    return render(
        "confusion.svg.j2",
        layout=layout,
        names=list(_names(result, layout)),
        cells=list(_cells(result, layout)),
        summary=f"Confusion matrix of {len(result.classes)} classes: {result.correct:,} of {result.n:,} images "
        "are on the diagonal. The table of classes below has the same numbers.",
    )


def _names(result: ZeroShotResult, layout: _Layout) -> Iterator[_Name]:
    for index, name in enumerate(result.classes):
        count = int(result.count_C[index])
        right = int(result.confusion_CC[index, index])
        at = layout.margin + layout.cell * (index + 0.5)
        yield _Name(at, _shortened(name), name, f"{100 * right / count:.0f}%" if count else "–")


def _cells(result: ZeroShotResult, layout: _Layout) -> Iterator[_Cell]:
    for true, predicted in zip(*result.confusion_CC.nonzero(), strict=True):
        images = int(result.confusion_CC[true, predicted])
        of = int(result.count_C[true])
        yield _Cell(
            x=layout.margin + layout.cell * float(predicted),
            y=layout.margin + layout.cell * float(true),
            # The square root keeps single mistakes visible.
            opacity=math.sqrt(images / of),
            diagonal=bool(true == predicted),
            text=_fitted(images, layout) if layout.numbered else "",
            title=f"true: {result.classes[true]}; predicted: {result.classes[predicted]}; {images:,} of {of:,} images",
        )


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1].rstrip() + "…"


def _fitted(images: int, layout: _Layout) -> str:
    text = f"{images}"
    return text if GLYPH * layout.font * len(text) <= layout.cell - 4 else f"{images / 1000:.0f}k"
