"""Which of DeepSpeed's keys a user may give: those that it knows, without what raylens decides or cannot work with.

The lists are of DeepSpeed 0.19, which training workers alone import; a test compares them with what it reads.
"""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["ALLOWED", "FREE", "OWN", "UNFIT", "conflicts"]

OWN = {
    "train_batch_size": "global_batch",
    "train_micro_batch_size_per_gpu": "scale.micro_batch",
    "gradient_accumulation_steps": "scale.micro_batch",
    "managed_gradient_accumulation": "scale.micro_batch",
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
    "elasticity": "scale.workers",
    "data_efficiency": "data",
    "curriculum_learning": "data",
    "vocabulary_size": "model.text.vocab",
    "steps_per_print": "log_every_steps",
    "tensorboard": "tracking.tensorboard",
    "wandb": "tracking.wandb",
}
"""A key that raylens decides, and the setting to use in its place."""

SPREAD = "checkpoints hold what ZeRO spreads evenly over all workers, and put weights back there"
MASTERS = "checkpoints hold masters and moments in fp32"
MEMORY = "checkpoints copy the optimiser's state from one memory"
GONE = "DeepSpeed has it no more"
FINITE = "a step whose gradient is not finite is to change nothing, and to be told of"
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
    "zero_optimization.zero_quantized_nontrainable_weights": "locked weights would be rounded, and registered so",
    "zero_optimization.zenflow": MEMORY,
    "zero_optimization.offload_optimizer.nvme_path": MEMORY,
    "zero_optimization.offload_optimizer.ratio": MEMORY,
    "zero_optimization.offload_optimizer.super_offload": MEMORY,
    "zero_force_ds_cpu_optimizer": "optimisers are torch's",
    "zero_optimization.compute_grad_norm": FINITE,
    "bf16.check_grad_overflow": FINITE,
    "gradient_allreduce_op": "what is learned would hang on the number of workers",
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
"""A key that is refused, and why."""

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
"""By section, the keys that may be given."""

FREE = ("aio", "flops_profiler", "comms_logger", "csv_monitor", "comet", "timers", "zero_optimization.leaf_module")
"""Sections in which any key may be given."""


def conflicts(keys: Mapping[str, Any]) -> list[str]:
    """A sentence for each key that is not DeepSpeed's, is decided by raylens, or does not go with it."""
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
    """What may have been meant: of all that stands in the section, refused or not, so that the answer to it follows."""
    prefix = f"{section}." if section else ""
    refused = [path.removeprefix(prefix) for path in (*OWN, *UNFIT) if path.startswith(prefix)]
    allowed = sorted(ALLOWED[section])
    close = difflib.get_close_matches(str(key), [*allowed, *(one for one in refused if "." not in one)], n=1)
    if not close:
        return f"; allowed here: {', '.join(allowed)}"
    instead = OWN.get(f"{prefix}{close[0]}")
    return f" (did you mean {close[0]!r}{f', which is {instead} here' if instead else ''}?)"
