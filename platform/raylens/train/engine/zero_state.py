"""The places where a DeepSpeed engine (0.19) keeps master weights and optimiser state, presented as `Fragment`s.

This file does not import DeepSpeed: it only knows the attributes of its objects.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from raylens.train.checkpoint.fragments import WEIGHT, Fragment

__all__ = ["after_skip", "ensure_state", "fragments_of", "masters_of", "push_weights", "scaler_of", "set_scaler"]

MOMENTS = {"adamw": ("exp_avg", "exp_avg_sq"), "lion": ("exp_avg",)}
SCALER = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")


def masters_of(engine: Any, stage: int) -> list[Tensor]:
    """Return the tensors that the optimiser updates."""
    optimizer = engine.optimizer
    if stage == 0:
        return [parameter for group in optimizer.param_groups for parameter in group["params"]]
    names = ("fp32_partitioned_groups_flat", "single_partition_of_fp32_groups", "fp32_groups_flat_partition")
    return list(next(getattr(optimizer, name) for name in names if hasattr(optimizer, name)))


def ensure_state(engine: Any, stage: int, kind: str, steps: int) -> None:
    """Create the optimiser's state, which it otherwise creates at its first step, with a number of steps taken."""
    optimizer = _inner(engine)
    for master in masters_of(engine, stage):
        state = optimizer.state[master]
        for moment in MOMENTS[kind]:
            if moment not in state:
                state[moment] = torch.zeros_like(master, memory_format=torch.preserve_format).detach()
        if kind == "adamw":
            state["step"] = torch.tensor(float(steps))
    for group in optimizer.param_groups:
        if kind != "adamw":
            group["step"] = steps


def fragments_of(engine: Any, stage: int, kind: str) -> Iterator[Fragment]:
    """Yield this worker's part of each trained parameter: a view, with the optimiser's state if there is any."""
    for parameter, name in engine.param_names.items():
        if parameter.requires_grad:
            place = _place(engine, stage, parameter)
            if place is not None:
                start, master, within = place
                state = _inner(engine).state.get(master, {})
                tensors = {WEIGHT: master.detach().view(-1)[within]}
                tensors |= {moment: state[moment].view(-1)[within] for moment in MOMENTS[kind] if moment in state}
                yield Fragment(name, start, start + within.stop - within.start, tensors)


def _place(engine: Any, stage: int, parameter: nn.Parameter) -> tuple[int, Tensor, slice] | None:
    """Return first element, optimiser's tensor and slice in it; None if another worker has the whole parameter."""
    optimizer = engine.optimizer
    if stage == 0:
        return 0, parameter, slice(0, parameter.numel())
    if stage == 3:
        group, offset, _ = optimizer.grad_position[optimizer.get_param_id(parameter)]
        ds: Any = parameter
        each = ds.ds_tensor.ds_numel
        start = dist.get_rank() * each
        count = min(each, ds.ds_numel - start)  # the last element is followed by padding
        master = optimizer.fp32_partitioned_groups_flat[group]
        return None if count <= 0 else (start, master, slice(offset, offset + count))
    mapping = getattr(parameter, "_hp_mapping", None)
    if mapping is None:
        return None
    at, start = mapping.hp_fragment_address, mapping.lp_fragment_address.start
    master = masters_of(engine, stage)[mapping.param_group_index]
    return start, master, slice(at.start, at.start + at.numel)


@torch.no_grad()
def push_weights(engine: Any, stage: int) -> None:
    """Copy the master weights into the module. Collective."""
    optimizer = engine.optimizer
    if stage in (1, 2):
        optimizer.update_lp_params()
    if stage != 3:
        return
    for group in range(len(optimizer.fp32_partitioned_groups_flat)):
        optimizer._reassign_or_swap_out_partitioned_parameters(group)
    gathered = optimizer.persistent_parameters
    if gathered:
        # Every worker keeps small parameters whole; partitioned without writing back, they are read again.
        gathered[0].partition(gathered)
        gathered[0].all_gather(gathered)


def after_skip(engine: Any, stage: int) -> None:
    """Do what DeepSpeed omits when it skips a step at stage 3, without which its next step fails. Collective."""
    gathered = engine.optimizer.persistent_parameters if stage == 3 else []
    if gathered:
        gathered[0].all_gather(gathered)


def scaler_of(engine: Any) -> dict[str, float]:
    """Return the state of loss scaling; empty if there is none."""
    return {name: getattr(scaler, name) for scaler in _scalers(engine) for name in SCALER if hasattr(scaler, name)}


def set_scaler(engine: Any, values: dict[str, float]) -> None:
    """Restore the state of loss scaling."""
    for scaler in _scalers(engine):
        for name, value in values.items():
            setattr(scaler, name, value)


def _scalers(engine: Any) -> list[Any]:
    optimizer = engine.optimizer
    scaler = getattr(optimizer, "loss_scaler", None) or getattr(optimizer, "loss_scale_config", None)
    return [] if scaler is None or isinstance(scaler, int | float) else [scaler]


def _inner(engine: Any) -> torch.optim.Optimizer:
    """Return the torch optimiser that DeepSpeed wraps."""
    inner: torch.optim.Optimizer = getattr(engine.optimizer, "optimizer", engine.optimizer)
    return inner
