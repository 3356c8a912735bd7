"""Which of DeepSpeed's keys a user may give: all but those that raylens decides, and says by what setting."""

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["conflicts"]

OWN = {
    "train_batch_size": "global_batch",
    "train_micro_batch_size_per_gpu": "scale.micro_batch",
    "gradient_accumulation_steps": "scale.micro_batch",
    "gradient_clipping": "optim.clip_norm",
    "optimizer": "optim.kind",
    "scheduler": "optim.schedule",
    "zero_optimization.stage": "zero.stage",
    "zero_optimization.offload_optimizer.device": "zero.offload_optimizer",
    "zero_optimization.cpu_offload": "zero.offload_optimizer",
    "zero_optimization.round_robin_gradients": "nothing: checkpoints could not be read back",
    "zero_force_ds_cpu_optimizer": "nothing: optimisers are torch's",
    "zero_allow_untested_optimizer": "optim.kind",
    "bf16.enabled": "precision",
    "bfloat16": "precision",
    "fp16.enabled": "precision",
    "fp16.auto_cast": "precision",
    "amp": "precision",
    "torch_autocast": "precision",
    "data_types": "precision",
    "activation_checkpointing": "towers.checkpoint_blocks",
    "checkpoint": "checkpoint",
    "compile": "towers.compile",
    "elasticity": "scale.workers",
    "steps_per_print": "log_every_steps",
    "tensorboard": "tracking.tensorboard",
    "wandb": "tracking.wandb",
}
"""A key that raylens decides, and the setting to use in its place."""


def conflicts(keys: Mapping[str, Any]) -> list[str]:
    """A sentence for each key that raylens decides."""
    return [f"zero.deepspeed.{path}: use {OWN[path]} instead" for path in _paths(keys) if path in OWN]


def _paths(keys: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for key, value in keys.items():
        path = f"{above}{key}"
        yield path
        if isinstance(value, Mapping):
            yield from _paths(value, f"{path}.")
