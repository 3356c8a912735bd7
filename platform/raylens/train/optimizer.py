"""Which parameters decay and which learn more slowly, and the optimiser over them."""

import re
from collections import defaultdict
from typing import Any

import torch
from torch import nn

from raylens.config import OptimConfig
from raylens.models import DualEncoder
from raylens.train.guarded import GuardedAdamW

__all__ = ["adamw", "parameter_groups"]

Group = dict[str, Any]
BLOCK = re.compile(r"(?:transformer\.|layer)(\d+)\.")


def parameter_groups(model: nn.Module, weight_decay: float, layer_decay: float = 1.0) -> list[Group]:
    """Decay on everything but gains, biases and the logit scale (Radford et al. 2021, section 2.5).

    With ``layer_decay`` below 1 each block of a tower has a group of its own, whose ``lr_scale`` is that factor
    once for every block behind it (Bao et al. 2022, section 3.1).
    """
    found: defaultdict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    depths = _depths(model)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            spared = parameter.ndim < 2 and "class_embedding" not in name
            found[0.0 if spared else weight_decay, layer_decay ** depths[name]].append(parameter)
    order = sorted(found, key=lambda key: (-key[0], -key[1]))
    return [{"params": found[key], "weight_decay": key[0], "lr_scale": key[1]} for key in order]


def _depths(model: nn.Module) -> dict[str, int]:
    """Of each parameter, how many blocks of its tower lie behind its own."""
    depths = {name: 0 for name, _ in model.named_parameters()}
    for module_name, module in model.named_modules():
        if isinstance(module, DualEncoder):
            for tower in ("visual", "text"):
                prefix = f"{module_name}.{tower}.".lstrip(".")
                names = [name for name in depths if name.startswith(prefix)]
                depths.update(_in_tower(names, prefix))
    return depths


def _in_tower(names: list[str], prefix: str) -> dict[str, int]:
    blocks = {name: int(found[1]) for name in names if (found := BLOCK.match(name.removeprefix(prefix)))}
    if not blocks:
        return dict.fromkeys(names, 0)
    first, last = min(blocks.values()), max(blocks.values())
    # What stands behind the blocks learns at full speed, what stands before them more slowly than the first.
    behind = ("ln_post", "proj", "ln_final", "text_projection", "attnpool")
    return {
        name: last + 1 - blocks[name]
        if name in blocks
        else 0
        if name.removeprefix(prefix).startswith(behind)
        else last + 2 - first
        for name in names
    }


def adamw(model: nn.Module, config: OptimConfig, *, guarded: bool = False) -> torch.optim.AdamW:
    """AdamW with decoupled decay (Loshchilov and Hutter 2019); ``guarded`` clips and skips steps by itself."""
    groups = parameter_groups(model, config.weight_decay, config.layer_decay)
    settings: dict[str, Any] = {"lr": config.peak_lr, "betas": (config.beta1, config.beta2), "eps": config.eps}
    if guarded:
        return GuardedAdamW(groups, clip_norm=config.clip_norm, **settings)
    return torch.optim.AdamW(groups, **settings)
