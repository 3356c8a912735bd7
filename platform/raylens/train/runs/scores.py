"""Which value of an evaluated metric is the best, and which the last."""

from collections.abc import Mapping, Sequence
from typing import Any

from raylens.evaluate.metrics import Goal, cost
from raylens.report.numbers import finite

__all__ = ["best_row", "last_row"]


def best_row(rows: Sequence[Mapping[str, Any]], metric: str, goal: Goal | None) -> Mapping[str, Any] | None:
    """The first of the rows with the best value of a metric; None where none has a value, or no goal is known."""
    if goal is None:
        return None
    known = [(cost(value, goal), row) for row in rows if (value := finite(row.get(metric))) is not None]
    return min(known, key=lambda pair: pair[0])[1] if known else None


def last_row(rows: Sequence[Mapping[str, Any]], metric: str) -> Mapping[str, Any] | None:
    """The last of the rows that has a value of a metric; None where none has."""
    return next((row for row in reversed(rows) if finite(row.get(metric)) is not None), None)
