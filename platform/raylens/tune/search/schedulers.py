"""Ray Tune's schedulers, as a sweep's settings have them."""

import random
from collections.abc import Mapping
from typing import Any

from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
)

from raylens.errors import ConfigError
from raylens.tune.config import SweepConfig
from raylens.tune.space import Space, Values

__all__ = ["Perturb", "RunLength", "perturbed", "scheduler_of"]

FIRST = {"asha": 1 / 9, "median": 1 / 4, "pbt": 1 / 4}
INTERVAL = 1 / 10


class RunLength:
    """A run of the base configuration, in what a scheduler counts in."""

    def __init__(self, config: SweepConfig, steps: int) -> None:
        unit = config.run.global_batch if config.scheduler.by == "samples" else 1
        self.whole = steps * unit
        self.between = min(config.run.evaluation.every_steps, steps) * unit
        """Two evaluations."""
        self.evaluations = -(-steps // config.run.evaluation.every_steps)

    def rounded(self, share: float) -> int:
        """A share of the run, in whole evaluations."""
        return max(1, round(share * self.whole / self.between)) * self.between


def scheduler_of(config: SweepConfig, space: Space, steps: int) -> Any:
    """For trials whose runs have so many steps where nothing else is searched.

    Raises:
        ConfigError: a run has too few evaluations for anything to be decided.
    """
    wanted, length = config.scheduler, RunLength(config, steps)
    if wanted.kind == "fifo":
        return FIFOScheduler()
    if length.evaluations < 3:
        raise ConfigError(
            f"run.evaluation.every_steps = {config.run.evaluation.every_steps}: a run of {steps} steps is evaluated "
            f"{length.evaluations} times, too seldom for scheduler.kind = {wanted.kind!r}: lower it, or choose fifo"
        )
    first = wanted.first or length.rounded(FIRST[wanted.kind])
    if first >= length.whole:
        raise ConfigError(
            f"scheduler.first = {first} {wanted.by}: a run has {length.whole}, so nothing is ever stopped"
        )
    how = {"metric": config.metric, "mode": config.goal}
    time = {"time_attr": wanted.by, **how}
    if wanted.kind == "asha":
        # The last rung is where the one in `reduction` that goes on has as far to go again as it came, or further: a
        # trial that is nearly done is not stopped, and the end of a run is the run's own.
        last = max(first, length.whole // wanted.reduction)
        return AsyncHyperBandScheduler(
            max_t=last, grace_period=first, reduction_factor=wanted.reduction, stop_last_trials=False, **time
        )
    if wanted.kind == "median":
        return MedianStoppingRule(grace_period=first, min_samples_required=3, hard_stop=True, **time)
    return PopulationBasedTraining(
        perturbation_interval=wanted.interval or length.rounded(INTERVAL),
        burn_in_period=first,
        quantile_fraction=wanted.quantile,
        custom_explore_fn=Perturb(space, wanted.factors, config.search.seed),
        log_config=False,
        require_attrs=True,
        **time,
    )


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
