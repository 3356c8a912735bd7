"""Which value of an evaluated metric is the best, and how figures of runs are written."""

from collections.abc import Mapping, Sequence
from typing import Any

from raylens.evaluate.metrics import Goal, cost, finite

__all__ = ["best_row", "count_text", "duration_text", "figure_text", "last_row"]


def best_row(rows: Sequence[Mapping[str, Any]], metric: str, goal: Goal | None) -> Mapping[str, Any] | None:
    """Return the first row with the best value of a metric, or None without a value or a goal."""
    if goal is None:
        return None
    known = [(cost(value, goal), row) for row in rows if (value := finite(row.get(metric))) is not None]
    return min(known, key=lambda pair: pair[0])[1] if known else None


def last_row(rows: Sequence[Mapping[str, Any]], metric: str) -> Mapping[str, Any] | None:
    """Return the last row with a value of a metric, or None."""
    return next((row for row in reversed(rows) if finite(row.get(metric)) is not None), None)


def figure_text(value: object) -> str:
    """A figure in four digits, or a dash."""
    number = finite(value)
    if number is None:
        return "–"
    if number == int(number) and abs(number) < 1e15:
        return f"{int(number):,}"
    return f"{number:,.1f}" if 1000 <= abs(number) < 1e9 else f"{number:.4g}"


def count_text(value: object) -> str:
    """A whole number, or a dash."""
    number = finite(value)
    return "–" if number is None else f"{number:,.0f}" if abs(number) < 1e15 else f"{number:.4g}"


def duration_text(seconds: float) -> str:
    """``2 d 3 h``, ``3 h 20 min``, ``4 min 10 s`` or ``12.3 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    for size, unit, below, small in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            whole, rest = divmod(int(seconds), size)
            return f"{whole:,} {unit} {rest // below} {small}"
    raise AssertionError(seconds)
