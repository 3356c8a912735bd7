"""Hours of a run, those that are lost with spot machines included."""

import math
from dataclasses import dataclass

from raylens.config import RunConfig
from raylens.errors import ConfigError
from raylens.workloads.cost.terms import Figure, Spot

__all__ = ["Duration", "checkpoint_steps", "duration_of"]

DAY, HOUR, MINUTE = 86_400.0, 3600.0, 60.0


@dataclass(frozen=True)
class Duration:
    """How long a run is, and why."""

    hours: float
    checkpoint_steps: int
    """Between two checkpoints."""
    repeated: float
    """Pairs that are trained on again after restarts."""
    figures: tuple[Figure, ...]


def checkpoint_steps(config: RunConfig, steps: int, pairs_per_second: float) -> int:
    """Steps between two checkpoints, whichever of the two settings comes first."""
    every = config.checkpoint.every_steps or steps
    if config.checkpoint.every_minutes is not None:
        a_step = config.global_batch / pairs_per_second
        every = min(every, max(1, math.ceil(config.checkpoint.every_minutes * MINUTE / a_step)))
    return min(every, steps)


def duration_of(
    config: RunConfig, steps: int, pairs_per_second: float, spot_nodes: int, spot: Spot, start_minutes: float
) -> Duration:
    """From the first machine to the last step.

    A loss of a node costs a restart and, on average, half of what is trained between two checkpoints. While that is
    made good, nodes are lost too: of T hours of training, T / (1 - losses an hour x hours a loss) go by.

    Args:
        config: of the run.
        steps: in all.
        pairs_per_second: of all workers.
        spot_nodes: nodes that may be taken away, any of which stops the run.
        spot: how often, and what follows.
        start_minutes: until the first step.

    Raises:
        ConfigError: more is lost than is trained.
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
