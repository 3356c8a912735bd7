"""The configurations of a grid or random search, which are known before the sweep starts."""

from typing import Any

from raylens.tune.config import SweepConfig
from raylens.tune.space import Space, Values

__all__ = ["candidates", "with_repeats"]

MOST_DRAWS = 100
"""Most draws for each configuration before the space counts as exhausted."""


def candidates(config: SweepConfig, space: Space) -> list[Values]:
    """Return all configurations of a grid, else as many different random ones as the budget allows."""
    if config.search.kind == "grid":
        return space.grid()
    configurations: list[Values] = []
    for draw in range(MOST_DRAWS * config.budget.trials):
        values = space.draw((config.search.seed, draw))
        if values not in configurations:
            configurations.append(values)
        if len(configurations) == config.budget.trials:
            break
    return configurations


def with_repeats(config: SweepConfig, configurations: list[Values]) -> list[dict[str, Any]]:
    """Return a trial for each repeat of each configuration; all first repeats come first."""
    return [
        {"number": number, "repeat": repeat, "values": values}
        for repeat in range(config.repeats)
        for number, values in enumerate(configurations)
    ]
