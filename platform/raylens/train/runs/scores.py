"""Which value of an evaluated metric is the best, and which the last."""

from collections.abc import Mapping, Sequence
from typing import Any

from raylens.evaluate import Goal, cost
from raylens.report import finite

__all__ = ["best_row", "last_row"]


def best_row(rows: Sequence[Mapping[str, Any]], metric: str, goal: Goal | None) -> Mapping[str, Any] | None:
    """Return the first row with the best value of a metric, or None without a value or a goal."""
    if goal is None:
        return None
    known = [(cost(value, goal), row) for row in rows if (value := finite(row.get(metric))) is not None]
    return min(known, key=lambda pair: pair[0])[1] if known else None


def last_row(rows: Sequence[Mapping[str, Any]], metric: str) -> Mapping[str, Any] | None:
    """Return the last row with a value of a metric, or None."""
    return next((row for row in reversed(rows) if finite(row.get(metric)) is not None), None)
