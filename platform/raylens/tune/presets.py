"""Ready-made spaces for the main hyper-parameters of CLIP: the temperature and the learning-rate schedule.

Ranges surround the values of Radford et al. 2021 (section 2.5, tables 18 to 20) or of the run. Ranges of keys that
count steps are shares of the run's steps.
"""

from collections.abc import Callable, Mapping

from raylens.config import RunConfig
from raylens.tune.domain import Domain

__all__ = ["PRESETS"]

Space = dict[str, Domain]


def temperature(_: RunConfig, __: int) -> Space:
    """Search the initial temperature, whether it is learned, its cap, and its learning rate."""
    learned = {"objective.learn_scale": [True]}
    return {
        "objective.temperature": Domain(log_uniform=(0.01, 0.3)),
        "objective.learn_scale": Domain(choice=[True, False]),
        "objective.max_logit_scale": Domain(choice=[100.0, 200.0], when=learned),
        "optim.groups.logit_scale.lr_factor": Domain(log_uniform=(0.1, 10.0), when=learned),
    }


def learning_rate(run: RunConfig, _: int) -> Space:
    """Search the peak learning rate, within a factor of 30 of the recipe's, and the weight decay."""
    peak = run.optim.peak_lr
    return {
        "optim.peak_lr": Domain(log_uniform=(peak / 30, peak * 30)),
        "optim.weight_decay": Domain(log_uniform=(0.01, 1.0)),
    }


def schedule(_: RunConfig, steps: int) -> Space:
    """Search the shape, warm-up, end and cool-down of the schedule."""
    falling = {"optim.schedule.kind": ["cosine", "linear"]}
    flat = {"optim.schedule.kind": ["constant", "inverse_sqrt"]}
    return {
        "optim.schedule.kind": Domain(choice=["cosine", "linear", "constant", "inverse_sqrt"]),
        "optim.schedule.warmup_steps": Domain(log_integer=_shares(steps, 0.01, 0.2)),
        "optim.schedule.end": Domain(choice=[0.0, 0.1], when=falling),
        "optim.schedule.cooldown_steps": Domain(integer=_shares(steps, 0.1, 0.4), when=flat),
    }


def betas(_: RunConfig, __: int) -> Space:
    """Search the decay rates of AdamW's moments."""
    return {
        "optim.beta1": Domain(uniform=(0.8, 0.95)),
        "optim.beta2": Domain(choice=[0.95, 0.98, 0.99, 0.999]),
    }


def _shares(steps: int, low: float, high: float) -> tuple[int, int]:
    first = max(1, round(low * steps))
    return first, max(first + 1, round(high * steps))


PRESETS: Mapping[str, Callable[[RunConfig, int], Space]] = {
    "temperature": temperature,
    "learning_rate": learning_rate,
    "schedule": schedule,
    "betas": betas,
}
"""Presets by name; each is a function of the run and its number of steps."""
