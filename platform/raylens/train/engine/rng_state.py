"""What each worker has for itself: where its generators of random numbers stand, and its running statistics."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

__all__ = ["RngState", "own_state", "take_own_state"]

CPU, DEVICE, BUFFER = "random:cpu", "random:device", "buffer:"


@dataclass(frozen=True)
class RngState:
    """Where torch's generators stand, for modules that draw from them."""

    cpu: Tensor
    device: Tensor | None
    """The generator of the GPU that computes; None on a CPU."""

    @classmethod
    def now(cls, device: torch.device) -> Self:
        """Take both generators' states, in host memory."""
        return cls(torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None)

    def restore(self, device: torch.device) -> None:
        """Put the generators back to where they stood."""
        torch.set_rng_state(self.cpu)
        if self.device is not None and device.type == "cuda":
            torch.cuda.set_rng_state(self.device, device)


def own_state(module: nn.Module, device: torch.device) -> dict[str, Tensor]:
    """Copies, in host memory."""
    found = {BUFFER + name: buffer.detach().to("cpu", copy=True) for name, buffer in _buffers(module)}
    state = RngState.now(device)
    found[CPU] = state.cpu
    if state.device is not None:
        found[DEVICE] = state.device
    return found


@torch.no_grad()
def take_own_state(saved: Mapping[str, Tensor], module: nn.Module, device: torch.device) -> None:
    """Go on from there; what was not saved stays as it is."""
    for name, buffer in _buffers(module):
        if BUFFER + name in saved:
            buffer.copy_(saved[BUFFER + name])
    if CPU in saved:
        RngState(saved[CPU], saved.get(DEVICE)).restore(device)


def _buffers(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Those that belong to the model's state, such as batch normalisation's."""
    kept = set(module.state_dict())
    return [(name, buffer) for name, buffer in module.named_buffers() if name in kept]
