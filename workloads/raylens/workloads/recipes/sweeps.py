"""Recipes of sweeps: functions that return a `SweepConfig`. A new one is a function, and a line in the table."""

from collections.abc import Callable, Mapping

from raylens.config import EvaluationConfig, SourceConfig, TrackingConfig
from raylens.tune import BudgetConfig, Domain, SchedulerConfig, SweepConfig
from raylens.workloads.recipes.digits import digits

__all__ = ["SWEEPS", "digits_sweep"]


def digits_sweep() -> SweepConfig:
    """Search temperature and schedule on the digits: 24 trials, a quarter of an hour on two cores."""
    held_out = SourceConfig(uri="quickstart/data/heldout")
    run = digits().model_copy(
        update={
            "length": digits().length.model_copy(update={"epochs": 8.0}),
            "resources": digits().resources.model_copy(update={"workers": 1}),
            "evaluation": EvaluationConfig(every_steps=10, pairs=held_out, zero_shot={"digits": held_out}),
            "tracking": TrackingConfig(tensorboard=False, prometheus=False),
        }
    )
    return SweepConfig(
        name="digits",
        storage="quickstart/sweeps",
        run=run,
        space={
            "objective.temperature": Domain(log_uniform=(0.02, 0.3)),
            "objective.learn_scale": Domain(choice=[True, False]),
            "optim.peak_lr": Domain(log_uniform=(1e-4, 2e-2)),
            "optim.schedule.kind": Domain(choice=["cosine", "linear", "constant"]),
            "optim.schedule.warmup_steps": Domain(log_integer=(2, 40)),
            "optim.schedule.cooldown_steps": Domain(integer=(10, 40), when={"optim.schedule.kind": ["constant"]}),
        },
        metric="zero_shot_digits",
        scheduler=SchedulerConfig(kind="asha"),
        budget=BudgetConfig(trials=24),
    )


SWEEPS: Mapping[str, Callable[[], SweepConfig]] = {"digits": digits_sweep}
