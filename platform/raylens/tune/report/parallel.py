"""Parallel coordinates of a sweep: an axis for each searched key and one for the metric, a line a trial."""

from collections.abc import Iterator, Sequence

from raylens.report.page import Panel
from raylens.tune.comparable import Point
from raylens.tune.report.drawing import LETTER, Dot, Mark, Path, Word, drawing
from raylens.report.axis import LONGEST, Scale, shortened
from raylens.tune.report.view import Shown

__all__ = ["parallel_panel", "pieces"]

LEAST_WIDTH, WIDTH, HEIGHT = 1064.0, 80.0, 300.0
LEFT, RIGHT, TOP = 60.0, 84.0, 52.0
LONGEST_NAME = 20

Place = tuple[float, float]


def parallel_panel(shown: Shown) -> Panel:
    """Coloured by the metric, the best on top; a key that does not apply to a trial is a gap in its line."""
    title = "Parallel coordinates"
    if not shown.drawn or not shown.scales:
        return Panel(title, None, "")
    axes = [*shown.scales.items(), (shown.metric, shown.metric_scale)]
    width = max(LEAST_WIDTH, LEFT + RIGHT + WIDTH * (len(axes) - 1))
    across = [LEFT + (width - LEFT - RIGHT) * number / (len(axes) - 1) for number in range(len(axes))]
    # The better, the higher it lies; ties by name, and the best over all.
    order = sorted(shown.drawn, key=lambda point: (shown.is_best(point), shown.level(point.metric)))
    lines = [mark for point in order for mark in _trial(point, shown, across)]
    marks = [*_rules(axes, across), *lines, *_texts(axes, across, int((across[1] - across[0] - 12) / LETTER))]
    return Panel(title, drawing(width, TOP + HEIGHT + 26, marks), _says(shown))


def pieces(
    point: Point, scales: Sequence[tuple[str, Scale]], metric: Scale, across: Sequence[float]
) -> list[list[Place]]:
    """A trial's line in units of the drawing, cut where a key has no value.

    Args:
        point: the trial.
        scales: keys with their axes, in the order of the axes.
        metric: the last axis.
        across: where each axis is.
    """
    places = [scale.place(point.values[key]) if key in point.values else None for key, scale in scales]
    found: list[list[Place]] = [[]]
    for x, place in zip(across, [*places, metric.place(point.metric)], strict=True):
        if place is None:
            found.append([])
        else:
            found[-1].append((x, TOP + (1 - place) * HEIGHT))
    return [piece for piece in found if piece]


def _trial(point: Point, shown: Shown, across: Sequence[float]) -> Iterator[Mark]:
    best = shown.is_best(point)
    kind = "line best" if best else f"line level-{shown.level(point.metric)}"
    for piece in pieces(point, list(shown.scales.items()), shown.metric_scale, across):
        yield Path(piece, kind, shown.says(point.trial))
        if best:
            yield from (Dot(*place, "end best") for place in piece)


def _rules(axes: Sequence[tuple[str, Scale]], across: Sequence[float]) -> Iterator[Mark]:
    for x, _ in zip(across, axes, strict=True):
        yield Path([(x, TOP), (x, TOP + HEIGHT)], "axis")


def _texts(axes: Sequence[tuple[str, Scale]], across: Sequence[float], longest: int) -> Iterator[Mark]:
    for number, (x, (key, scale)) in enumerate(zip(across, axes, strict=True)):
        *folder, last = key.split(".")
        # Names of neighbours take turns in two heights, for there is no room beside each other.
        y = TOP - 30 if number % 2 else TOP - 14
        yield Word(x, y, shortened(last if folder else key, LONGEST_NAME), kind="name", title=key)
        for tick in scale.ticks(longest=min(LONGEST, longest)):
            text_y = TOP + (1 - tick.place) * HEIGHT
            yield Path([(x - 3, text_y), (x + 3, text_y)], "axis")
            yield Word(x + 7, text_y, tick.text, "start", "tick over", tick.full if tick.full != tick.text else "")


def _says(shown: Shown) -> str:
    keys = ", ".join(shown.scales)
    gaps = any(key not in point.values for point in shown.drawn for key in shown.scales)
    return (
        f"Axes from left to right: {keys}, and {shown.metric} ({shown.better}). A line is a trial; the stronger its "
        "colour, the better its newest value; the best is in another colour."
        + (" A line is broken at a key that does not apply." if gaps else "")
        + shown.thinned
    )
