"""The hours of a run, including those that are lost by interruptions of spot machines."""

import math
from dataclasses import dataclass

from raylens.config import RunConfig
from raylens.errors import ConfigError
from raylens.workloads.cost.terms import Figure, Spot

__all__ = ["Duration", "checkpoint_steps", "duration_of"]

DAY, HOUR, MINUTE = 86_400.0, 3600.0, 60.0


@dataclass(frozen=True)
class Duration:
    """The duration of a run, and the figures from which it follows."""

    hours: float
    checkpoint_steps: int
    """Number of steps between two checkpoints."""
    repeated: float
    """Number of pairs that are trained on again after restarts."""
    figures: tuple[Figure, ...]


def checkpoint_steps(config: RunConfig, steps: int, pairs_per_second: float) -> int:
    """Return the steps between two checkpoints, by the setting that comes first."""
    every = config.checkpoint.every_steps or steps
    if config.checkpoint.every_minutes is not None:
        a_step = config.global_batch / pairs_per_second
        every = min(every, max(1, math.ceil(config.checkpoint.every_minutes * MINUTE / a_step)))
    return min(every, steps)


def duration_of(
    config: RunConfig, steps: int, pairs_per_second: float, spot_nodes: int, spot: Spot, start_minutes: float
) -> Duration:
    """Compute the time from the first machine to the last step.

    The loss of a node costs a restart and, on average, half of the time between two checkpoints. Nodes are lost during
    this time as well, so T hours of training take T / (1 - losses an hour x hours a loss).

    Args:
        config: the configuration of the run.
        steps: the number of steps of the run.
        pairs_per_second: the speed of all workers together.
        spot_nodes: the number of nodes that may be lost; losing any of them stops the run.
        spot: how often nodes are lost, and how long a restart takes.
        start_minutes: minutes until the first step.

    Raises:
        ConfigError: more time is lost than is trained.
    """
    training = steps * config.global_batch / pairs_per_second
    every = checkpoint_steps(config, steps, pairs_per_second)
    interval = every * config.global_batch / pairs_per_second
    figures = [Figure("training", training / HOUR, "h", f"pairs seen / {pairs_per_second:,.0f} pairs/s")]
    losses = spot_nodes * spot.interruptions / DAY
    lost = interval / 2 + spot.restart_minutes * MINUTE
    share = losses * lost
    if share >= 1.0:
        raise ConfigError(
            f"{spot_nodes} spot nodes, each taken away {spot.interruptions:g} times a day at a cost of "
            f"{lost / MINUTE:.0f} minutes, lose more than is trained: save more often (checkpoint.every_minutes), use "
            "fewer nodes, or none on spot"
        )
    going = training / (1.0 - share)
    if spot_nodes:
        how = f"{spot_nodes} nodes x {spot.interruptions:g} a day x {going / DAY:,.2f} days"
        figures.append(Figure("restarts", losses * going, "times", how))
        each = f"half of {interval / MINUTE:,.1f} minutes between checkpoints and {spot.restart_minutes:g} to restart"
        figures.append(Figure("lost to restarts", (going - training) / HOUR, "h", f"restarts x ({each})"))
    hours = (going + start_minutes * MINUTE) / HOUR
    how = f"training, restarts, and {start_minutes:g} minutes until the first step"
    figures.append(Figure("hours", hours, "h", how))
    return Duration(hours, every, losses * going * every * config.global_batch / 2, tuple(figures))
