"""How population-based training changes the settings of what it copies (Jaderberg et al. 2017, section 4)."""

import random
from collections.abc import Mapping
from typing import Any

from raylens.tune.space import Space, Values

__all__ = ["Perturb", "perturbed"]


def perturbed(space: Space, values: Values, factors: tuple[float, float], draw: random.Random) -> Values:
    """Each number times one of two factors, within its range; each value of a list, one time in four, drawn again.

    A peak learning rate that is multiplied multiplies what is left of its schedule: warm-up and decay go on from where
    they are, nothing begins again. A temperature's factor moves the learned scale (`run.fork.scale_shift`).
    """
    changed: Values = {}
    for key, domain in space.domains.items():
        if not space.applies(key, changed):
            continue
        if key not in values:  # it applies only now
            changed[key] = domain.at(draw.random())
        elif domain.span is not None:
            changed[key] = domain.scaled(values[key], draw.choice(factors))
        else:
            changed[key] = domain.at(draw.random()) if draw.random() < 0.25 else values[key]
    return changed


class Perturb:
    """For Ray Tune, which asks for a new configuration of a trial that becomes a copy; it keeps this by pickle."""

    def __init__(self, space: Space, factors: tuple[float, float], seed: int) -> None:
        self._space, self._factors = space, factors
        self._draw = random.Random(seed)  # noqa: S311 (no secret)

    def __call__(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The copied trial's configuration, with other values."""
        trial = config["trial"]
        return {
            **config,
            "trial": {**trial, "values": perturbed(self._space, trial["values"], self._factors, self._draw)},
        }
