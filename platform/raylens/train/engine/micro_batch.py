"""The micro-batch size that fits into memory, measured before training begins."""

from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from raylens.config import RunConfig
from raylens.errors import TrainingError
from raylens.train.engine.forward import Forward
from raylens.train.engine.gradcache import MicroBatch, frozen_running_stats

__all__ = [
    "available_bytes",
    "bytes_per_pair",
    "fitting_micro_batch",
    "free_memory",
    "largest_divisor",
    "random_micro_batch",
]

PAIRS = (2, 6)
"""Two batch sizes whose difference in memory is the cost of the pairs between them, without constant terms."""
BACKWARD, CHECKPOINTED = 1.5, 3.0
"""Peak memory of both passes relative to what the forward pass keeps: gradients of activations and temporaries, and
with checkpointed blocks also the activations within one block."""
SHARE = {"cuda": 0.8, "cpu": 0.4}
"""Share of the free memory that activations may use; on a CPU, the stream and its object store need memory as well."""
STATE = 16
"""Bytes per parameter that DeepSpeed will allocate, at most: gradient, two moments and a master copy in fp32."""


def fitting_micro_batch(forward: Forward, config: RunConfig, device: torch.device, sharing: int) -> int:
    """Return the largest micro-batch that fits on every worker. Collective.

    Args:
        forward: the towers, on the device, before their training state is allocated.
        config: the configuration of the run.
        device: the device of the towers.
        sharing: the number of workers on this machine.
    """
    parameters = sum(parameter.numel() for parameter in forward.parameters() if parameter.requires_grad)
    limit = available_bytes(device, parameters, sharing) / bytes_per_pair(forward, config, device)
    agreed = torch.tensor([largest_divisor(config.worker_batch, limit)], device=device)
    if dist.is_initialized():
        dist.all_reduce(agreed, op=dist.ReduceOp.MIN)
    return int(agreed)


def largest_divisor(batch: int, limit: float) -> int:
    """Return the largest divisor of ``batch`` that is at most ``limit``, or 1 if there is none."""
    return max((n for n in range(1, batch + 1) if batch % n == 0 and n <= limit), default=1)


def bytes_per_pair(forward: Forward, config: RunConfig, device: torch.device) -> float:
    """Measure the bytes that a pair of full length needs in both passes; module and generators are left unchanged."""
    devices = [device] if device.type == "cuda" else []
    with frozen_running_stats(forward), torch.random.fork_rng(devices):
        few, many = (
            _kept_bytes(forward, random_micro_batch(config, pairs, forward.model.end_id, device)) for pairs in PAIRS
        )
    factor = CHECKPOINTED if config.towers.checkpoint_blocks else BACKWARD
    return max(1.0, factor * (many - few) / (PAIRS[1] - PAIRS[0]))


def available_bytes(device: torch.device, parameters: int, sharing: int) -> float:
    """Return the bytes that activations may use beside the training state.

    Args:
        device: the device of the towers.
        parameters: the number of parameters that are trained.
        sharing: the number of workers that share this machine's memory; on a GPU each has its own.
    """
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory() / sharing
    return max(0.0, SHARE[device.type] * free - STATE * parameters)


def free_memory(proc: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the bytes that are available on this machine, or in the container that this process runs in.

    Raises:
        TrainingError: the system does not report them.
    """
    try:
        lines = proc.read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration) as error:
        raise TrainingError(f"{proc} does not report the free memory ({error}): set scale.micro_batch") from None
    limit, used = cgroup / "memory.max", cgroup / "memory.current"
    if limit.exists() and (most := limit.read_text().strip()) != "max":
        free = min(free, max(0, int(most) - int(used.read_text())))
    return free


def random_micro_batch(config: RunConfig, pairs: int, end_id: int, device: torch.device) -> MicroBatch:
    """Return pairs of noise whose captions fill the context."""
    size, text = config.model.image.size, config.model.text
    image_bSSC = torch.randint(0, 256, (pairs, size, size, 3), dtype=torch.uint8, device=device)
    ids_bT = torch.randint(0, 256, (pairs, text.context), device=device, dtype=torch.int32)
    ids_bT[:, -1] = end_id
    return MicroBatch(image_bSSC, ids_bT, torch.arange(pairs, device=device))


def _kept_bytes(forward: nn.Module, micro: MicroBatch) -> int:
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        held = forward(*micro)
    for parameter in forward.parameters():  # views of parameters cost nothing
        kept.pop(parameter.untyped_storage().data_ptr(), None)
    del held
    return sum(kept.values())
