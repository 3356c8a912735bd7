"""Which configurations a sweep tries, where that is settled beforehand."""

from typing import Any

from raylens.tune.config import SweepConfig
from raylens.tune.space import Space, Values

__all__ = ["candidates", "with_repeats"]

MOST_DRAWS = 100
"""For each configuration, before a space counts as having no more of them."""


def candidates(config: SweepConfig, space: Space) -> list[Values]:
    """Of a grid all; else random ones, as many as the budget has, each different."""
    if config.search.kind == "grid":
        return space.grid()
    found: list[Values] = []
    for draw in range(MOST_DRAWS * config.budget.trials):
        values = space.draw((config.search.seed, draw))
        if values not in found:
            found.append(values)
        if len(found) == config.budget.trials:
            break
    return found


def with_repeats(config: SweepConfig, found: list[Values]) -> list[dict[str, Any]]:
    """A trial for each repeat of each configuration; all first repeats come first."""
    return [
        {"number": number, "repeat": repeat, "values": values}
        for repeat in range(config.repeats)
        for number, values in enumerate(found)
    ]
