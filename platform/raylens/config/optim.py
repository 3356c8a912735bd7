"""The settings of the optimiser: its learning rates over the run, and the moving average of the weights."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from raylens.config.node import Node

__all__ = ["GroupConfig", "GroupsConfig", "OptimConfig", "ScheduleConfig"]

Steps = Annotated[int, Field(ge=0)]


class ScheduleConfig(Node):
    """The learning rate over the run as a share of its peak: a linear warm-up, a curve, a linear cool-down."""

    kind: Literal["cosine", "linear", "constant", "inverse_sqrt"] = "cosine"
    """The curve after the warm-up. ``constant`` with a cool-down is WSD (Hu et al. 2024); ``inverse_sqrt`` falls
    with the root of the step (Vaswani et al. 2017)."""
    warmup_steps: Steps = 2000
    cooldown_steps: Steps = 0
    """The last steps of the run, in which the rate goes linearly from the curve to ``end``."""
    end: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """The share of the peak after the last step; ``constant`` and ``inverse_sqrt`` reach it only by a cool-down."""

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if self.end and self.kind in ("constant", "inverse_sqrt") and not self.cooldown_steps:
            raise ValueError(f"end = {self.end:g} with kind = {self.kind!r} needs cooldown_steps to get there")
        return self


class GroupConfig(Node):
    """The settings that differ for a group of weights."""

    lr_factor: Annotated[float, Field(ge=0.0)] = 1.0
    """The factor on ``optim.peak_lr`` for this group."""
    weight_decay: Annotated[float, Field(ge=0.0)] | None = None
    """The group's weight decay; ``optim.weight_decay`` if unset. Gains and biases have none in any case."""
    schedule: ScheduleConfig | None = None
    """The group's schedule; ``optim.schedule`` if unset."""


class GroupsConfig(Node):
    """The groups of weights that may have settings of their own."""

    image: GroupConfig = GroupConfig()
    text: GroupConfig = GroupConfig()
    logit_scale: GroupConfig = GroupConfig()
    """The learned temperature, and the bias of the sigmoid loss."""


class OptimConfig(Node):
    """The optimiser; by default AdamW with warm-up and cosine decay to zero (Radford et al. 2021, table 18)."""

    kind: Literal["adamw", "lion"] = "adamw"
    """``lion`` (Chen et al. 2023) keeps one moment instead of two; it needs a peak 3 to 10 times lower and a weight
    decay higher by the same factor."""
    peak_lr: Annotated[float, Field(gt=0.0)] = 5e-4
    schedule: ScheduleConfig = ScheduleConfig()
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.2
    """The decoupled weight decay of everything but gains, biases and the logit scale."""
    beta1: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    beta2: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.98
    eps: Annotated[float, Field(gt=0.0)] = 1e-6
    clip_norm: Annotated[float, Field(ge=0.0)] = 0.0
    """The largest norm of the whole gradient; 0 switches clipping off."""
    max_skipped: Annotated[int, Field(ge=0)] = 10
    """The most steps in a row that are skipped because a loss or gradient is not finite; then the run stops."""
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """The factor on the learning rate from each block of a tower to the block before; 1 for training from scratch."""
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """The decay per step of the moving average of weights, which is evaluated and registered in their place; 0 keeps
    none."""
    groups: GroupsConfig = GroupsConfig()
