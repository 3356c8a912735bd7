"""The settings of DeepSpeed's ZeRO, and the keys of DeepSpeed's own configuration that a user may add.

Those are all keys of DeepSpeed but the ones that raylens sets or cannot work with. The lists are those of DeepSpeed
0.19, which only training workers import; a test compares them with the keys that it reads.
"""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Self

from pydantic import model_validator

from raylens.config.node import Node

__all__ = ["ALLOWED", "FREE", "OWN", "UNFIT", "ZeroConfig", "conflicts"]

OWN = {
    "train_batch_size": "global_batch",
    "train_micro_batch_size_per_gpu": "resources.micro_batch",
    "gradient_accumulation_steps": "resources.micro_batch",
    "managed_gradient_accumulation": "resources.micro_batch",
    "gradient_clipping": "optim.clip_norm",
    "optimizer": "optim.kind",
    "scheduler": "optim.schedule",
    "zero_allow_untested_optimizer": "optim.kind",
    "zero_optimization.stage": "zero.stage",
    "zero_optimization.offload_optimizer.device": "zero.offload_optimizer",
    "zero_optimization.cpu_offload": "zero.offload_optimizer",
    "zero_optimization.cpu_offload_use_pin_memory": "zero.offload_optimizer",
    "zero_optimization.save_muon_momentum_buffer_in_memory": "optim.kind",
    "zero_optimization.elastic_checkpoint": "checkpoint",
    "zero_optimization.load_from_fp32_weights": "checkpoint",
    "zero_optimization.pipeline_loading_checkpoint": "checkpoint",
    "zero_optimization.gather_16bit_weights_on_model_save": "checkpoint",
    "zero_optimization.stage3_gather_16bit_weights_on_model_save": "checkpoint",
    "zero_optimization.stage3_gather_fp16_weights_on_model_save": "checkpoint",
    "checkpoint": "checkpoint",
    "datastates_ckpt": "checkpoint",
    "bf16.enabled": "precision",
    "bfloat16": "precision",
    "fp16.enabled": "precision",
    "fp16.auto_cast": "precision",
    "amp": "precision",
    "torch_autocast": "precision",
    "data_types": "precision",
    "activation_checkpointing": "towers.checkpoint_blocks",
    "compile": "towers.compile",
    "elasticity": "resources.workers",
    "data_efficiency": "data",
    "curriculum_learning": "data",
    "vocabulary_size": "model.text.vocab",
    "steps_per_print": "log_every_steps",
    "tensorboard": "tracking.tensorboard",
    "wandb": "tracking.wandb",
}
"""Keys that raylens sets itself, each with the setting to use instead."""

SPREAD = "checkpoints hold state that ZeRO partitions evenly over all workers, and restore weights there"
MASTERS = "checkpoints hold masters and moments in fp32"
MEMORY = "checkpoints copy the optimiser's state from one memory"
GONE = "DeepSpeed no longer has it"
FINITE = "a step whose gradient is not finite must change nothing, and must be reported"
UNFIT = {
    "zero_optimization.mics_shard_size": SPREAD,
    "zero_optimization.mics_hierarchical_params_gather": SPREAD,
    "zero_optimization.zero_hpz_partition_size": SPREAD,
    "zero_optimization.round_robin_gradients": SPREAD,
    "zero_optimization.parameter_alignment": SPREAD,
    "zero_optimization.legacy_stage1": SPREAD,
    "zero_optimization.offload_param": SPREAD,
    "zero_optimization.cpu_offload_param": SPREAD,
    "tensor_parallel": SPREAD,
    "expert_parallel": SPREAD,
    "use_data_before_expert_parallelism": SPREAD,
    "sequence_parallel_size": SPREAD,
    "pipeline": SPREAD,
    "fp16.fp16_master_weights_and_grads": MASTERS,
    "bf16.bf16_master_weights_and_grads": MASTERS,
    "bf16.bf16_optimizer_states": MASTERS,
    "zero_optimization.zero_quantized_nontrainable_weights": "locked weights would be registered rounded",
    "zero_optimization.zenflow": MEMORY,
    "zero_optimization.offload_optimizer.nvme_path": MEMORY,
    "zero_optimization.offload_optimizer.ratio": MEMORY,
    "zero_optimization.offload_optimizer.super_offload": MEMORY,
    "zero_force_ds_cpu_optimizer": "optimisers are torch's",
    "zero_optimization.compute_grad_norm": FINITE,
    "bf16.check_grad_overflow": FINITE,
    "gradient_allreduce_op": "what is learned would depend on the number of workers",
    "hybrid_engine": "it is for inference",
    "weight_quantization": "it is for inference",
    "autotuning": "it starts runs of its own; see raylens estimate",
    "zero_optimization.zeropp_loco_param": GONE,
    **dict.fromkeys(
        (
            "nebula",
            "compression_training",
            "quantize_training",
            "sparse_gradients",
            "sparse_attention",
            "eigenvalue",
            "graph_harvesting",
            "progressive_layer_drop",
        ),
        GONE,
    ),
}
"""Keys that are refused, each with the reason."""

STAGE3 = (
    "prefetch_bucket_size",
    "param_persistence_threshold",
    "model_persistence_threshold",
    "max_live_parameters",
    "max_reuse_distance",
    "module_granularity_threshold",
    "use_all_reduce_for_fetch_params",
    "allgather_sequential",
)
ALLOWED = {
    "": (
        "zero_optimization", "fp16", "bf16", "communication_data_type", "seq_parallel_communication_data_type",
        "prescale_gradients", "gradient_predivide_factor", "disable_allgather", "disable_python_gc", "dump_state",
        "wall_clock_breakdown", "memory_breakdown", "log_level", "dataloader_drop_last", "aio", "flops_profiler",
        "comms_logger", "csv_monitor", "comet", "timers",
    ),
    "zero_optimization": (
        "offload_optimizer", "contiguous_gradients", "reduce_scatter", "reduce_bucket_size", "allgather_partitions",
        "use_multi_rank_bucket_allreduce", "allgather_bucket_size", "overlap_comm", "sub_group_size",
        "ignore_unused_parameters", "zero_quantized_weights", "zero_quantized_gradients", "memory_efficient_linear",
        "override_module_apply", "log_trace_cache_warnings", "enable_sanity_checks", "leaf_module",
        *STAGE3, *(f"stage3_{key}" for key in STAGE3),
    ),
    "zero_optimization.offload_optimizer": (
        "pin_memory", "buffer_count", "fast_init", "pipeline_read", "pipeline_write", "cpuadam_cores_perc",
    ),
    "fp16": (
        "loss_scale", "initial_scale_power", "loss_scale_window", "hysteresis", "consecutive_hysteresis",
        "min_loss_scale",
    ),
    "bf16": ("immediate_grad_update",),
}  # fmt: skip
"""The keys that are allowed in each section."""

FREE = ("aio", "flops_profiler", "comms_logger", "csv_monitor", "comet", "timers", "zero_optimization.leaf_module")
"""The sections in which any key is allowed."""


class ZeroConfig(Node):
    """The partitioning of state over the workers by DeepSpeed: stage 1 partitions optimiser state, 2 gradients too, 3
    weights too."""

    stage: Literal[0, 1, 2, 3] = 1
    offload_optimizer: bool = False
    """Keep optimiser state and master weights in the host's memory and update there; needs stage 1, 2 or 3."""
    deepspeed: dict[str, Any] = {}  # noqa: RUF012 (pydantic copies it)
    """Further keys of DeepSpeed's configuration, as in its documentation, such as bucket sizes. A key that raylens sets
    itself is refused, and the error names the setting to use."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.offload_optimizer and self.stage == 0:
            raise ValueError("offload_optimizer = true needs stage 1, 2 or 3, but stage is 0")
        if complaints := conflicts(self.deepspeed):
            raise ValueError("; ".join(complaints))
        return self


def conflicts(keys: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each key that is not DeepSpeed's, is set by raylens, or does not work with it."""
    return list(_conflicts(keys, ""))


def _conflicts(keys: Mapping[str, Any], section: str) -> Iterator[str]:
    for key, value in keys.items():
        path = f"{section}.{key}" if section else key
        if path in OWN:
            yield f"zero.deepspeed.{path} = {value!r}: use {OWN[path]} instead"
        elif path in UNFIT:
            yield f"zero.deepspeed.{path} = {value!r}: leave it out, because {UNFIT[path]}"
        elif key not in ALLOWED[section]:
            yield f"unknown key 'zero.deepspeed.{path}'{_hint(key, section)}"
        elif path not in ALLOWED and path not in FREE:
            continue
        elif not isinstance(value, Mapping):
            yield f"zero.deepspeed.{path} = {value!r}: expected keys and values, as DeepSpeed's documentation has them"
        elif path in ALLOWED:
            yield from _conflicts(value, path)


def _hint(key: str, section: str) -> str:
    """Suggest the closest key of the section, refused keys included, whose own error then names the fix."""
    prefix = f"{section}." if section else ""
    refused = [path.removeprefix(prefix) for path in (*OWN, *UNFIT) if path.startswith(prefix)]
    allowed = sorted(ALLOWED[section])
    close = difflib.get_close_matches(str(key), [*allowed, *(name for name in refused if "." not in name)], n=1)
    if not close:
        return f"; allowed here: {', '.join(allowed)}"
    instead = OWN.get(f"{prefix}{close[0]}")
    return f" (did you mean {close[0]!r}{f', which is {instead} here' if instead else ''}?)"
