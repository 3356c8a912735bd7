"""Learning rates of a small proxy, scaled to a larger run by an explicit rule.

Adam's learning rate decreases with the width of hidden layers (Yang et al. 2022, table 3: proportional to 1/width, for
hidden weights under their parametrisation) and increases with the root of the batch size (Malladi et al. 2022, section
4.1). ``docs/tuning.md`` says when this holds and when it does not.
"""

import math
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from raylens.config import Node, RunConfig
from raylens.tune.domain import Domain

__all__ = ["TransferConfig", "lr_factor", "transferred"]

KEYS = ("optim.peak_lr",)


class TransferConfig(Node):
    """The proxy for which the ranges of learning rates hold."""

    width: Annotated[int, Field(gt=0)]
    """Width of the proxy's image tower; for a ResNet, of its first stage."""
    global_batch: Annotated[int, Field(gt=0)]
    width_power: Annotated[float, Field(ge=0.0, le=2.0)] = 1.0
    """The rate is divided by the ratio of widths to this power."""
    batch_power: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    """The rate is multiplied by the ratio of batches to this power."""


def lr_factor(proxy: TransferConfig, run: RunConfig) -> float:
    """Return the ratio of the run's learning rate to the proxy's."""
    wider = run.model.image.width / proxy.width
    larger = run.global_batch / proxy.global_batch
    return math.pow(larger, proxy.batch_power) / math.pow(wider, proxy.width_power)


def transferred(space: Mapping[str, Domain], proxy: TransferConfig, run: RunConfig) -> dict[str, Domain]:
    """Multiply the ranges of learning rates of a space by `lr_factor`."""
    factor = lr_factor(proxy, run)
    return {key: _times(domain, factor) if key in KEYS else domain for key, domain in space.items()}


def _times(domain: Domain, factor: float) -> Domain:
    changed = {
        name: tuple(factor * end for end in span)
        for name in ("uniform", "log_uniform")
        if (span := getattr(domain, name)) is not None
    }
    if domain.choice is not None:
        changed["choice"] = [factor * value for value in domain.choice]  # type: ignore[assignment] # a list there
    return domain.model_copy(update=changed)
