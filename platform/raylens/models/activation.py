"""The two activations of CLIP models."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from raylens.config.model import Activation

__all__ = ["QuickGELU", "activation_module"]

SLOPE = 1.702


class QuickGELU(nn.Module):
    """``x * sigmoid(1.702 x)``, the approximation that OpenAI's weights were trained with."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape in, the same out."""
        y: Tensor = _QuickGELU.apply(x)  # type: ignore[no-untyped-call]
        return y


class _QuickGELU(torch.autograd.Function):
    """It is ``silu(1.702 x) / 1.702``, for which torch has kernels: one saved tensor, and one pass backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        steep = x * SLOPE
        ctx.save_for_backward(steep)
        return nn.functional.silu(steep).mul_(1.0 / SLOPE)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (steep,) = ctx.saved_tensors
        return torch.ops.aten.silu_backward(grad, steep)  # type: ignore[no-any-return]


def activation_module(name: Activation) -> nn.Module:
    """The module behind a configuration's name."""
    return QuickGELU() if name == "quick_gelu" else nn.GELU()
