"""Learning rate and temperature as pure functions of the step, so that a resume needs no state."""

import math
from typing import NamedTuple

from raylens.config import ObjectiveConfig, ScheduleConfig

__all__ = ["TrainingProgress", "learning_rate", "log_scale_at", "share_of_peak"]


class TrainingProgress(NamedTuple):
    """How far a run is."""

    step: int
    """About to be taken, from 0."""
    steps: int
    """Of the whole run."""


def learning_rate(peak: float, schedule: ScheduleConfig, now: TrainingProgress) -> float:
    """The rate of a step."""
    return peak * share_of_peak(schedule, now)


def share_of_peak(schedule: ScheduleConfig, now: TrainingProgress) -> float:
    """Up in a line, along the curve, and down in a line at the end; in [0, 1].

    Cosine to zero is the paper's (Radford et al. 2021, table 18; Loshchilov and Hutter 2017). A warm-up that does not
    fit is cut to half of the steps, a cool-down to what the warm-up leaves.
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
    """Between warm-up and cool-down, where the peak is 1."""
    if schedule.kind == "constant":
        return 1.0
    if schedule.kind == "inverse_sqrt":
        # From the peak at the end of the warm-up; without one, from the first step.
        return math.sqrt(max(1, warmup) / max(1, step, warmup))
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    left = 1.0 - progress if schedule.kind == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
    return schedule.end + (1.0 - schedule.end) * left


def log_scale_at(objective: ObjectiveConfig, now: TrainingProgress) -> float | None:
    """The logarithm of the logit scale where it follows a schedule: half a cosine from its start to its end."""
    if objective.end_temperature is None:
        return None
    begin, end = math.log(objective.initial_scale), -math.log(objective.end_temperature)
    progress = now.step / max(1, now.steps - 1)
    return end + (begin - end) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
