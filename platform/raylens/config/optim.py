"""How weights are updated: the optimiser, its learning rates over the run, and the average that is kept of weights."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from raylens.config.node import Node

__all__ = ["GroupConfig", "GroupsConfig", "OptimConfig", "ScheduleConfig"]

Steps = Annotated[int, Field(ge=0)]


class ScheduleConfig(Node):
    """A learning rate over the run, as a share of its peak: up in a line, along a curve, down in a line at the end."""

    kind: Literal["cosine", "linear", "constant", "inverse_sqrt"] = "cosine"
    """Of the curve after the warm-up. ``constant`` with a cool-down is WSD (Hu et al. 2024); ``inverse_sqrt`` falls
    with the root of the step (Vaswani et al. 2017)."""
    warmup_steps: Steps = 2000
    cooldown_steps: Steps = 0
    """Last steps of the run, in which the rate goes from where the curve is to ``end`` in a line."""
    end: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Share of the peak after the last step; a constant or ``inverse_sqrt`` goes there in its cool-down alone."""

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if self.end and self.kind in ("constant", "inverse_sqrt") and not self.cooldown_steps:
            raise ValueError(f"end = {self.end:g} with kind = {self.kind!r} needs cooldown_steps to get there")
        return self


class GroupConfig(Node):
    """What is different for some of the weights."""

    lr_factor: Annotated[float, Field(ge=0.0)] = 1.0
    """On ``optim.peak_lr``."""
    weight_decay: Annotated[float, Field(ge=0.0)] | None = None
    """``optim.weight_decay`` if unset; gains and biases have none in any case."""
    schedule: ScheduleConfig | None = None
    """``optim.schedule`` if unset."""


class GroupsConfig(Node):
    """The weights that may be treated apart."""

    image: GroupConfig = GroupConfig()
    text: GroupConfig = GroupConfig()
    logit_scale: GroupConfig = GroupConfig()
    """The learned temperature, and the bias of the sigmoid loss."""


class OptimConfig(Node):
    """AdamW with warm-up and cosine decay to zero, unless said otherwise (Radford et al. 2021, table 18)."""

    kind: Literal["adamw", "lion"] = "adamw"
    """``lion`` (Chen et al. 2023) keeps one moment instead of two; it wants a peak 3 to 10 times lower and a weight
    decay that is as much higher."""
    peak_lr: Annotated[float, Field(gt=0.0)] = 5e-4
    schedule: ScheduleConfig = ScheduleConfig()
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.2
    """Decoupled; on everything but gains, biases and the logit scale."""
    beta1: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    beta2: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.98
    eps: Annotated[float, Field(gt=0.0)] = 1e-6
    clip_norm: Annotated[float, Field(ge=0.0)] = 0.0
    """Largest norm of the whole gradient; 0 leaves it alone."""
    max_skipped: Annotated[int, Field(ge=0)] = 10
    """Steps in a row that are skipped for a loss or gradient that is not finite, before the run stops."""
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Factor on the learning rate from each block of a tower to the one before it; 1 for training from scratch."""
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Of the moving average of weights, which is evaluated and registered in their place, a step; 0 keeps none."""
    groups: GroupsConfig = GroupsConfig()
