"""The logit scale: one learned parameter, the logarithm of an inverse temperature.

Radford et al. 2021, sections 2.4 and 2.5: it starts at ``ln(1 / 0.07)``, and the scale is capped at 100, because
training became unstable without the cap.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.function import once_differentiable

from raylens.errors import TrainingError
from raylens.objectives.ranks import Ranks

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed import ProcessGroup

__all__ = ["capped_log_scale", "initial_log_scale"]


def initial_log_scale(temperature: float = 0.07) -> float:
    """Return the parameter's initial value, ``ln(1 / temperature)``.

    Raises:
        TrainingError: `temperature` is not a positive, finite number.
    """
    if not 0.0 < temperature < math.inf:
        raise TrainingError(f"temperature = {temperature}: it must be positive and finite; 0.07 is usual")
    return -math.log(temperature)


def capped_log_scale(log_scale: Tensor, max_scale: float = 100.0, *, group: ProcessGroup | None = None) -> Tensor:
    """Return ``min(log_scale, ln max_scale)``, with a gradient that lets the parameter come back from above the cap.

    The usual cap clamps the parameter in place after every step. Under ZeRO such a clamp is lost: the optimiser
    steps an fp32 master copy held elsewhere, which then overwrites the clamped one. A cap in the forward pass
    needs no access to any copy. But the plain minimum has a gradient of zero above the cap, so a step that
    overshoots would freeze the parameter there for good. Here the gradient always passes below the cap. At or above
    the cap it passes only if it is positive, because descent then lowers the parameter; otherwise it is set to zero.

    With several ranks this must be decided on the gradient of the global loss: one rank's own gradient may
    have the other sign, and dropping it before the average would bias the average. The backward pass therefore
    averages this one number over `group` first; the average that DDP or ZeRO takes afterwards leaves it as it is.

    Args:
        log_scale: the parameter, one element.
        max_scale: the cap on the scale itself, not on its logarithm.
        group: the ranks that share the global batch, as for `contrastive_loss`.

    Raises:
        TrainingError: `max_scale` is not a positive, finite number.
    """
    if not 0.0 < max_scale < math.inf:
        raise TrainingError(f"max_scale = {max_scale}: it must be positive and finite; 100 is usual")
    capped: Tensor = _Cap.apply(log_scale, math.log(max_scale), Ranks.of(group))  # type: ignore[no-untyped-call]
    return capped


class _Cap(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, log_scale: Tensor, log_cap: float, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        ctx.save_for_backward(log_scale < log_cap)
        return log_scale.clamp(max=log_cap)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (below,) = ctx.saved_tensors
        grad = grad.clone()
        ctx.ranks.sum_in_place(grad)
        grad /= ctx.ranks.size
        # A gradient that is not finite must stay visible to the checks that follow, above the cap too.
        return torch.where(below | ~(grad <= 0), grad, torch.zeros_like(grad)), None, None
