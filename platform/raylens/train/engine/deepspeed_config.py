"""DeepSpeed's configuration, from the settings of a run and the keys that a user adds."""

from collections.abc import Mapping
from typing import Any

from raylens.config import RunConfig

__all__ = ["deepspeed_config"]


def deepspeed_config(config: RunConfig, micro_batch: int, *, on_gpu: bool) -> dict[str, Any]:
    """Return the dictionary that ``deepspeed.initialize`` takes; a user's keys never override those set here."""
    zero: dict[str, Any] = {"stage": config.zero.stage}
    if config.zero.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": on_gpu}
    decided: dict[str, Any] = {
        "train_batch_size": config.global_batch,
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": config.worker_batch // micro_batch,
        # Always set, because DeepSpeed's default clips at 1.0. At stage 0 the optimiser clips.
        "gradient_clipping": config.optim.clip_norm if config.zero.stage else 0.0,
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 2**31,
    }
    if config.precision in ("bf16", "fp16"):
        decided[config.precision] = {"enabled": True}
        decided["data_types"] = {"grad_accum_dtype": "fp32"}
    return _merged(config.zero.deepspeed, decided)


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged
