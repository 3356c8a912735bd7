"""The optimiser and its parameter groups: weight decay and learning rate of each parameter."""

import re
from collections import defaultdict
from typing import Any

import torch
from torch import nn

from raylens.config import GroupConfig, OptimConfig, ScheduleConfig
from raylens.extras import import_extra
from raylens.models import DualEncoder
from raylens.train.loop.schedule import TrainingProgress, learning_rate

__all__ = ["build_optimizer", "parameter_groups", "set_learning_rates"]

Group = dict[str, Any]
BLOCK = re.compile(r"(?:transformer\.|layer)(\d+)\.")


def parameter_groups(model: nn.Module, optim: OptimConfig) -> list[Group]:
    """Return the groups of the optimiser; gains, biases and the logit scale do not decay (Radford et al. 2021, section
    2.5).

    Each group has a ``schedule`` and an ``lr_scale``, a factor on the peak rate: that of its part of the model, and
    with ``layer_decay`` below 1 also ``layer_decay`` once for every block of its tower behind it (Bao et al. 2022,
    section 3.1).
    """
    members: defaultdict[tuple[float, float, str], list[nn.Parameter]] = defaultdict(list)
    schedules: dict[str, ScheduleConfig] = {}
    depths = _depths(model)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        part = _part(name, optim)
        spared = parameter.ndim < 2 and "class_embedding" not in name
        decay = optim.weight_decay if part.weight_decay is None else part.weight_decay
        schedule = part.schedule or optim.schedule
        key = (0.0 if spared else decay, part.lr_factor * optim.layer_decay ** depths[name], repr(schedule))
        schedules[key[2]] = schedule
        members[key].append(parameter)
    order = sorted(members, key=lambda key: (-key[0], -key[1], key[2]))
    return [
        {"params": members[key], "weight_decay": key[0], "lr_scale": key[1], "schedule": schedules[key[2]]}
        for key in order
    ]


def _part(name: str, optim: OptimConfig) -> GroupConfig:
    groups = optim.groups
    parts = {"visual": groups.image, "text": groups.text}
    # The forward module holds the model under this name.
    return parts.get(name.removeprefix("model.").partition(".")[0], groups.logit_scale)


def _depths(model: nn.Module) -> dict[str, int]:
    """Return the number of blocks of its tower behind each parameter."""
    depths = {name: 0 for name, _ in model.named_parameters()}
    for module_name, module in model.named_modules():
        if isinstance(module, DualEncoder):
            for tower in ("visual", "text"):
                prefix = f"{module_name}.{tower}.".lstrip(".")
                names = [name for name in depths if name.startswith(prefix)]
                depths.update(_in_tower(names, prefix))
    return depths


def _in_tower(names: list[str], prefix: str) -> dict[str, int]:
    blocks = {name: int(match[1]) for name in names if (match := BLOCK.match(name.removeprefix(prefix)))}
    if not blocks:
        return dict.fromkeys(names, 0)
    first, last = min(blocks.values()), max(blocks.values())
    # Layers after the blocks learn at the full rate, those before them more slowly than the first block.
    behind = ("ln_post", "proj", "ln_final", "text_projection", "attnpool")
    return {
        name: last + 1 - blocks[name]
        if name in blocks
        else 0
        if name.removeprefix(prefix).startswith(behind)
        else last + 2 - first
        for name in names
    }


def build_optimizer(model: nn.Module, optim: OptimConfig) -> torch.optim.Optimizer:
    """Return AdamW with decoupled weight decay (Loshchilov and Hutter 2019), or Lion.

    Raises:
        ConfigError: the library of the optimiser is not installed.
    """
    groups, betas = parameter_groups(model, optim), (optim.beta1, optim.beta2)
    if optim.kind == "lion":
        lion: torch.optim.Optimizer = import_extra("lion", "pytorch_optimizer", "optim.kind = 'lion'").Lion(
            groups, lr=optim.peak_lr, betas=betas, weight_decouple=True
        )
        return lion
    return torch.optim.AdamW(groups, lr=optim.peak_lr, betas=betas, eps=optim.eps)


def set_learning_rates(optimizer: Any, optim: OptimConfig, progress: TrainingProgress) -> None:
    """Set the learning rate of each group for a step."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(optim.peak_lr * group["lr_scale"], group["schedule"], progress)
