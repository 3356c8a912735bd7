"""What each worker has for itself: where its generators of random numbers stand, and its running statistics."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

__all__ = ["own_state", "take_own_state"]

CPU, DEVICE, BUFFER = "random:cpu", "random:device", "buffer:"


def own_state(module: nn.Module, device: torch.device) -> dict[str, Tensor]:
    """Copies, in host memory."""
    found = {BUFFER + name: buffer.detach().to("cpu", copy=True) for name, buffer in _buffers(module)}
    found[CPU] = torch.get_rng_state()
    if device.type == "cuda":
        found[DEVICE] = torch.cuda.get_rng_state(device)
    return found


@torch.no_grad()
def take_own_state(saved: Mapping[str, Tensor], module: nn.Module, device: torch.device) -> None:
    """Go on from there; what was not saved stays as it is."""
    for name, buffer in _buffers(module):
        if BUFFER + name in saved:
            buffer.copy_(saved[BUFFER + name])
    if CPU in saved:
        torch.set_rng_state(saved[CPU])
    if DEVICE in saved and device.type == "cuda":
        torch.cuda.set_rng_state(saved[DEVICE], device)


def _buffers(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Those that belong to the model's state, such as batch normalisation's."""
    kept = set(module.state_dict())
    return [(name, buffer) for name, buffer in module.named_buffers() if name in kept]
