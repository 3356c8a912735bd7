"""The training state of one worker in host memory, as a checkpoint keeps it."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Snapshot"]


@dataclass(frozen=True)
class Snapshot:
    """Copies of a worker's state; training may continue while they are written."""

    tensors: "dict[str, Tensor]"
    """Pieces of parameters, by `fragments.key_of`."""
    local: "dict[str, Tensor]" = field(default_factory=dict)
    """State that belongs to this worker alone: its generators and running statistics."""
    scaler: dict[str, float] = field(default_factory=dict)
    """State of loss scaling, equal on all workers."""
    applied: int = 0
    """Number of optimiser steps taken, equal on all workers; skipped steps do not count."""
