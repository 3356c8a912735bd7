"""The metrics that evaluations yield: a name, a value, and whether higher or lower is better.

The direction accompanies the value wherever it is stored or shown, because a name does not determine it: a labelled
set may be called ``frank`` or ``loss``, and higher values of its accuracy ``zero_shot_loss`` are still better.
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
"""The full names of the metrics of runs that have no goals on record; see `goal_of`."""


@dataclass(frozen=True)
class Metric:
    """One value that an evaluator yields, with its direction."""

    name: str
    value: float
    goal: Goal
    """``max`` if higher values are better, ``min`` if lower ones are."""

    @property
    def cost(self) -> float:
        """The value, negated if higher is better; see `raylens.evaluate.metrics.cost`."""
        return cost(self.value, self.goal)


def cost(value: float, goal: Goal) -> float:
    """Return the value, negated if higher is better, so that the best of several values has the lowest cost."""
    return value if goal == "min" else -value


def goal_of(name: str, goals: object) -> Goal | None:
    """Return the direction of a stored metric.

    Args:
        name: the name of the metric.
        goals: the goals by name, as stored beside the values; older files have none, and then the full name must be
            one of raylens' own.

    Returns:
        The goal, or None if it is unknown.
    """
    written = goals.get(name) if isinstance(goals, Mapping) else None
    if written == "min" or (written is None and OWN["min"].fullmatch(name)):
        return "min"
    if written == "max" or (written is None and OWN["max"].fullmatch(name)):
        return "max"
    return None
