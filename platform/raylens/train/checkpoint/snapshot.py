"""The state of training of one worker, in host memory: what a checkpoint keeps of it."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Snapshot"]


@dataclass(frozen=True)
class Snapshot:
    """Copies: training may go on while they are written."""

    tensors: "dict[str, Tensor]"
    """Pieces of parameters, by `fragments.key_of`."""
    own: "dict[str, Tensor]" = field(default_factory=dict)
    """What only this worker has: generators, running statistics."""
    scaler: dict[str, float] = field(default_factory=dict)
    """State of loss scaling, the same on all workers."""
    applied: int = 0
    """Steps that the optimiser took, the same on all workers; skipped ones do not count."""
