"""How many pairs go through the towers at a time: what fits, measured before training begins."""

from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from raylens.config import RunConfig
from raylens.errors import TrainingError
from raylens.train.engine.forward import Forward
from raylens.train.engine.gradcache import Micro, statistics_kept

__all__ = ["available_bytes", "bytes_of_pair", "fitting", "free_memory", "largest_divisor", "random_micro"]

PAIRS = (2, 6)
"""Batches whose difference tells what a pair costs; what does not grow with the batch drops out."""
BACKWARD, CHECKPOINTED = 1.5, 3.0
"""Memory of both passes over that of what the forward pass keeps: gradients of activations, and temporaries; where
blocks are checkpointed, the inside of one as well."""
SHARE = {"cuda": 0.8, "cpu": 0.4}
"""Of the memory that is free. On a CPU, the stream and its object store live in it too."""
STATE = 16
"""Bytes a parameter that DeepSpeed is yet to take, at most: gradient, two moments and a master copy in fp32."""


def fitting(forward: Forward, config: RunConfig, device: torch.device, sharing: int) -> int:
    """The largest micro-batch that fits on every worker. Collective.

    Args:
        forward: the towers, on the device, before their training state is made.
        config: of the run.
        device: where the towers are.
        sharing: workers on this machine.
    """
    parameters = sum(parameter.numel() for parameter in forward.parameters() if parameter.requires_grad)
    limit = available_bytes(device, parameters, sharing) / bytes_of_pair(forward, config, device)
    agreed = torch.tensor([largest_divisor(config.worker_batch, limit)], device=device)
    if dist.is_initialized():
        dist.all_reduce(agreed, op=dist.ReduceOp.MIN)
    return int(agreed)


def largest_divisor(batch: int, limit: float) -> int:
    """The largest divisor of ``batch`` that is at most ``limit``, and 1 where even that is more."""
    return max((n for n in range(1, batch + 1) if batch % n == 0 and n <= limit), default=1)


def bytes_of_pair(forward: Forward, config: RunConfig, device: torch.device) -> float:
    """What a pair of full length takes in both passes, measured; leaves no trace in the module or the generators."""
    devices = [device] if device.type == "cuda" else []
    with statistics_kept(forward), torch.random.fork_rng(devices):
        few, many = (_kept_bytes(forward, random_micro(config, pairs, forward.model.end_id, device)) for pairs in PAIRS)
    factor = CHECKPOINTED if config.towers.checkpoint_blocks else BACKWARD
    return max(1.0, factor * (many - few) / (PAIRS[1] - PAIRS[0]))


def available_bytes(device: torch.device, parameters: int, sharing: int) -> float:
    """Memory that activations may take, when the state of training has its part.

    Args:
        device: where the towers are.
        parameters: of the model.
        sharing: workers that have this machine's memory in common; on a GPU each has its own.
    """
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory() / sharing
    return max(0.0, SHARE[device.type] * free - STATE * parameters)


def free_memory(proc: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that this machine, or the container that it pretends to be, can still give.

    Raises:
        TrainingError: the system does not tell.
    """
    try:
        lines = proc.read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration) as error:
        raise TrainingError(
            f"{proc} does not tell how much memory is free ({error}): set resources.micro_batch"
        ) from None
    limit, used = cgroup / "memory.max", cgroup / "memory.current"
    if limit.exists() and (most := limit.read_text().strip()) != "max":
        free = min(free, max(0, int(most) - int(used.read_text())))
    return free


def random_micro(config: RunConfig, pairs: int, end_id: int, device: torch.device) -> Micro:
    """Pairs of noise whose captions are as long as they may be."""
    size, text = config.model.image.size, config.model.text
    image_bSSC = torch.randint(0, 256, (pairs, size, size, 3), dtype=torch.uint8, device=device)
    ids_bT = torch.randint(0, 256, (pairs, text.context), device=device, dtype=torch.int32)
    ids_bT[:, -1] = end_id
    return Micro(image_bSSC, ids_bT, torch.arange(pairs, device=device))


def _kept_bytes(forward: nn.Module, micro: Micro) -> int:
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        held = forward(*micro)
    for parameter in forward.parameters():  # and views of them
        kept.pop(parameter.untyped_storage().data_ptr(), None)
    del held
    return sum(kept.values())
