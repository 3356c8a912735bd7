"""Parameters, activations and operations of a run's towers, counted on a model without memory (device "meta")."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from raylens.config import ModelConfig, RunConfig, TowersConfig
from raylens.estimate.flops import model_costs
from raylens.models import Block, DualEncoder, prepare_towers, unfilled

__all__ = ["Counts", "counts_of"]

END = 1
PAIRS = (2, 4)
"""Two batch sizes whose difference is what the pairs between them keep, without constant terms."""
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Counts:
    """Parameters of the model, and bytes and operations of one pair."""

    parameters: int
    trainable: int
    """Number of parameters that have a gradient."""
    cast: int
    """Number of parameters that autocast casts to bf16, once for each micro-batch; 0 without autocast."""
    largest_module: int
    """Number of parameters of the module that has most of its own."""
    image_flops: float
    """Operations of the forward pass; a multiplication and an addition are two."""
    text_flops: float
    kept_bytes: float
    """Bytes that the forward pass keeps for the backward pass in the run's precision, blocks checkpointed or not."""
    inside_bytes: float
    """Bytes kept within the block that keeps most, without checkpointed blocks."""
    largest_bytes: float
    """Bytes of the largest tensor that is kept."""


def counts_of(config: RunConfig, tokens: int) -> Counts:
    """Count the model as the run trains it: with its precision, locked towers, dropout and checkpointed blocks.

    Args:
        config: the configuration of the run.
        tokens: the tokens of a caption, start and end included.
    """
    towers = config.towers.model_copy(update={"compile": False})  # nothing is computed here
    return _counts(config.model, towers, config.precision, config.objective.learn_scale, tokens)


@lru_cache(maxsize=32)
def _counts(config: ModelConfig, towers: TowersConfig, precision: str, learn_scale: bool, tokens: int) -> Counts:
    model = _model(config, towers, precision)
    model.logit_scale.requires_grad_(learn_scale)
    plain = _model(config, towers.model_copy(update={"checkpoint_blocks": False}), precision)
    few, many = (_kept(model, pairs, tokens).bytes for pairs in PAIRS)
    whole = _kept(plain, PAIRS[0], tokens)
    cost = model_costs(config, tokens)
    return Counts(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        trainable=sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        cast=_cast(model) if precision == "amp_bf16" else 0,
        largest_module=max(sum(own.numel() for own in module.parameters(recurse=False)) for module in model.modules()),
        image_flops=1e9 * cost.image_gflops * (1.0 - towers.patch_dropout),
        text_flops=1e9 * cost.text_gflops,
        kept_bytes=(many - few) / (PAIRS[1] - PAIRS[0]),
        inside_bytes=whole.inside / PAIRS[0],
        largest_bytes=whole.largest / PAIRS[0],
    )


def _model(config: ModelConfig, towers: TowersConfig, precision: str) -> DualEncoder:
    with unfilled():
        model = DualEncoder(config, end_id=END, mean=(0.5,) * 3, std=(0.5,) * 3)
    if precision in DTYPES:
        model.to(DTYPES[precision])
    if precision == "amp_bf16":
        model.multiply_in(torch.bfloat16)  # keeps the same tensors as autocast, which does not support device "meta"
    return prepare_towers(model, towers)


def _cast(model: DualEncoder) -> int:
    """Return the parameters that `DualEncoder.multiply_in` casts to bf16, and the projections, which autocast casts."""
    return sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if parameter.dtype == torch.bfloat16 or name in ("visual.proj", "text.text_projection")
    )


@dataclass
class _Kept:
    """Bytes of the storages that autograd keeps, each counted once, and the most that one block keeps."""

    bytes: int = 0
    largest: int = 0
    inside: int = 0


def _kept(model: DualEncoder, pairs: int, tokens: int) -> _Kept:
    total, seen = _Kept(), {}
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights and storage._cdata not in seen:
            seen[storage._cdata] = tensor  # a reference, so that no other storage reuses its address
            total.bytes += storage.nbytes()
            total.largest = max(total.largest, storage.nbytes())
        return tensor

    size = model.config.image.size
    image_BCSS = torch.zeros(pairs, 3, size, size, device="meta", dtype=model.dtype)
    ids_BT = torch.full((pairs, tokens), 5, device="meta")
    key_B = torch.arange(pairs, device="meta")
    with saved_tensors_hooks(keep, lambda tensor: tensor), _Fused(), _blocks_counted(model, total):
        held = model.visual(image_BCSS, key_B), model.text(ids_BT, torch.full((pairs,), tokens - 1), key_B)
    del held
    return total


@contextmanager
def _blocks_counted(model: nn.Module, total: _Kept) -> Iterator[None]:
    """Record how much each block adds to what is kept."""
    before = [0]

    def enter(*_: Any) -> None:
        before[0] = total.bytes

    def leave(*_: Any) -> None:
        total.inside = max(total.inside, total.bytes - before[0])

    blocks = [module for module in model.modules() if isinstance(module, Block)]
    hooks = [block.register_forward_pre_hook(enter) for block in blocks]
    hooks += [block.register_forward_hook(leave) for block in blocks]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Fused(TorchFunctionMode):
    """Attention as GPUs compute it: without a matrix of its weights, which device "meta" would count."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        if func is not functional.scaled_dot_product_attention:
            return func(*args, **options)
        flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        return flash(*args, 0.0, options.get("is_causal", False), attn_mask=options.get("attn_mask"))[0]
