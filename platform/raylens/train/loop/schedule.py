"""Learning rate and temperature as pure functions of the step, so that a resumed run needs no state for them."""

import math
from typing import NamedTuple

from raylens.config import ObjectiveConfig, ScheduleConfig

__all__ = ["TrainingProgress", "learning_rate", "log_scale_at", "share_of_peak"]


class TrainingProgress(NamedTuple):
    """The position of a run within its schedule."""

    step: int
    """The step about to be taken, counted from 0."""
    steps: int
    """Number of steps of the whole run."""


def learning_rate(peak: float, schedule: ScheduleConfig, now: TrainingProgress) -> float:
    """Return the learning rate of a step."""
    return peak * share_of_peak(schedule, now)


def share_of_peak(schedule: ScheduleConfig, now: TrainingProgress) -> float:
    """Return the factor on the peak rate, in [0, 1]: a linear warm-up, a curve, and a linear cool-down.

    Cosine to zero is the paper's schedule (Radford et al. 2021, table 18; Loshchilov and Hutter 2017). A warm-up longer
    than half of the run is cut to half of the run, and a cool-down to what the warm-up leaves.
    """
    step, steps = now
    warmup = min(schedule.warmup_steps, steps // 2)
    if step < warmup:
        return (step + 1) / warmup
    cooldown = min(schedule.cooldown_steps, steps - warmup)
    down = steps - cooldown
    if step < down:
        return _curve(schedule, step, warmup, steps)
    begin = _curve(schedule, down, warmup, steps)
    return begin + (min(begin, schedule.end) - begin) * (step - down) / cooldown


def _curve(schedule: ScheduleConfig, step: int, warmup: int, steps: int) -> float:
    """Return the factor between warm-up and cool-down, where the peak is 1."""
    if schedule.kind == "constant":
        return 1.0
    if schedule.kind == "inverse_sqrt":
        # From the peak at the end of the warm-up; without one, from the first step.
        return math.sqrt(max(1, warmup) / max(1, step, warmup))
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    left = 1.0 - progress if schedule.kind == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
    return schedule.end + (1.0 - schedule.end) * left


def log_scale_at(objective: ObjectiveConfig, now: TrainingProgress) -> float | None:
    """Return the log of the scheduled logit scale, half a cosine from its start to its end; None if it is learned."""
    if objective.end_temperature is None:
        return None
    begin, end = math.log(objective.initial_scale), -math.log(objective.end_temperature)
    progress = now.step / max(1, now.steps - 1)
    return end + (begin - end) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
