"""Metrics as evaluations yield them: a name, a value, and whether higher or lower is better.

The direction goes with the value wherever it is kept or shown, because no name tells it: a labelled set may be called
``frank`` or ``loss``, and its accuracy ``zero_shot_loss`` is still better where it is higher.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from raylens.config import Goal

__all__ = ["Goal", "Metric", "cost", "goal_of"]

OWN = {
    "min": re.compile(r"validation_loss"),
    "max": re.compile(r"(image_to_text|text_to_image)_recall_[0-9]+|zero_shot_[a-z0-9_]+"),
}
"""Whole names of the metrics that raylens measured before it wrote down their goals; see `goal_of`."""


@dataclass(frozen=True)
class Metric:
    """One value that an evaluator yields, with its direction."""

    name: str
    value: float
    goal: Goal
    """``max`` where higher values are better, ``min`` where lower ones are."""

    @property
    def cost(self) -> float:
        """The value, negated where higher is better; see `raylens.evaluate.metrics.cost`."""
        return cost(self.value, self.goal)


def cost(value: float, goal: Goal) -> float:
    """The value, negated where higher is better, so that the best of several values has the lowest cost."""
    return value if goal == "min" else -value


def goal_of(name: str, goals: object) -> Goal | None:
    """The direction of a metric that was written down.

    Args:
        name: of the metric.
        goals: the goals by name that stand beside the values; what was written before goals were has none, and then
            the whole name must be one that raylens gave.

    Returns:
        None where nothing says it.
    """
    written = goals.get(name) if isinstance(goals, Mapping) else None
    if written == "min" or (written is None and OWN["min"].fullmatch(name)):
        return "min"
    if written == "max" or (written is None and OWN["max"].fullmatch(name)):
        return "max"
    return None
