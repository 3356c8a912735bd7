"""The state that belongs to one worker alone: its random number generators and its module's buffers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from raylens.train.checkpoint.fragments import BUFFER

__all__ = ["RngState", "local_state", "restore_local_state"]

CPU, DEVICE = "random:cpu", "random:device"


@dataclass(frozen=True)
class RngState:
    """The state of torch's random number generators, for modules that draw from them."""

    cpu: Tensor
    device: Tensor | None
    """The state of the generator of the GPU that computes; None on a CPU."""

    @classmethod
    def now(cls, device: torch.device) -> Self:
        """Return the present state of the generators of the CPU and of ``device``."""
        return cls(torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None)

    def restore(self, device: torch.device) -> None:
        """Set the generators to this state."""
        torch.set_rng_state(self.cpu)
        if self.device is not None and device.type == "cuda":
            torch.cuda.set_rng_state(self.device, device)


def local_state(module: nn.Module, device: torch.device) -> dict[str, Tensor]:
    """Return copies, in host memory, of the module's buffers and the generators' state."""
    state = {BUFFER + name: buffer.detach().to("cpu", copy=True) for name, buffer in _buffers(module)}
    rng = RngState.now(device)
    return state | {CPU: rng.cpu} | ({} if rng.device is None else {DEVICE: rng.device})


@torch.no_grad()
def restore_local_state(saved: Mapping[str, Tensor], module: nn.Module, device: torch.device) -> None:
    """Set buffers and generators to a saved state; those that were not saved stay as they are."""
    for name, buffer in _buffers(module):
        if BUFFER + name in saved:
            buffer.copy_(saved[BUFFER + name])
    if CPU in saved:
        RngState(saved[CPU], saved.get(DEVICE)).restore(device)


def _buffers(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Return the buffers that are part of the model's state, such as those of batch normalisation."""
    persistent = set(module.state_dict())
    return [(name, buffer) for name, buffer in module.named_buffers() if name in persistent]
