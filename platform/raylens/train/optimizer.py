"""Which parameters decay, and the optimiser over them."""

from typing import Any

import torch
from torch import nn

from raylens.config import OptimConfig

__all__ = ["adamw", "parameter_groups"]


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Decay on everything but gains, biases and the logit scale (Radford et al. 2021, section 2.5)."""
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    spared = [parameter for name, parameter in named if parameter.ndim < 2 and "class_embedding" not in name]
    # By identity: comparing tensors compares their values.
    spared_ids = {id(parameter) for parameter in spared}
    decayed = [parameter for _, parameter in named if id(parameter) not in spared_ids]
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": spared, "weight_decay": 0.0},
    ]


def adamw(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW with decoupled decay (Loshchilov and Hutter 2019)."""
    groups = parameter_groups(model, config.weight_decay)
    return torch.optim.AdamW(groups, lr=config.peak_lr, betas=(config.beta1, config.beta2), eps=config.eps)
