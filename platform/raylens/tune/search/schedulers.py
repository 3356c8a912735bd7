"""The schedulers of Ray Tune, built from a sweep's configuration, and the perturbation of population-based training."""

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
    """The length of a run of the base configuration, in the unit of the scheduler."""

    def __init__(self, config: SweepConfig, steps: int) -> None:
        unit = config.run.global_batch if config.scheduler.by == "samples" else 1
        self.whole = steps * unit
        self.between = min(config.run.evaluation.every_steps, steps) * unit
        """Distance between two evaluations."""
        self.evaluations = -(-steps // config.run.evaluation.every_steps)

    def rounded(self, share: float) -> int:
        """Return a share of the run, rounded to whole evaluations."""
        return max(1, round(share * self.whole / self.between)) * self.between


def scheduler_of(config: SweepConfig, space: Space, steps: int) -> Any:
    """Build the scheduler for trials of ``steps`` steps.

    Raises:
        ConfigError: a run has too few evaluations for the scheduler to decide.
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
            f"scheduler.first = {first} {wanted.by}: a run has {length.whole}, so no trial is ever stopped: lower it"
        )
    how = {"metric": config.metric, "mode": config.goal}
    time = {"time_attr": wanted.by, **how}
    if wanted.kind == "asha":
        # The last rung is at most 1/reduction of the run: a trial that is nearly done is not stopped, and the end of a
        # run is left to the run itself.
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
    """Multiply each number by one of two factors, within its range; redraw each value of a list with probability 1/4.

    A factor on the peak learning rate multiplies the rest of its schedule: warm-up and decay continue without a
    restart. A factor on the temperature shifts the learned logit scale (`run.fork.scale_shift`).
    """
    changed: Values = {}
    for key, domain in space.domains.items():
        if not space.applies(key, changed):
            continue
        if key not in values:  # the key applies only now
            changed[key] = domain.at(draw.random())
        elif domain.span is not None:
            changed[key] = domain.scaled(values[key], draw.choice(factors))
        else:
            changed[key] = domain.at(draw.random()) if draw.random() < 0.25 else values[key]
    return changed


class Perturb:
    """Perturbs the configuration of a copied trial (Jaderberg et al. 2017, section 4); Ray Tune pickles it."""

    def __init__(self, space: Space, factors: tuple[float, float], seed: int) -> None:
        self._space, self._factors = space, factors
        self._draw = random.Random(seed)  # noqa: S311 (no secret)

    def __call__(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the configuration of the copied trial with perturbed values."""
        trial = config["trial"]
        return {
            **config,
            "trial": {**trial, "values": perturbed(self._space, trial["values"], self._factors, self._draw)},
        }
