"""Optimisers that skip a step whose gradient is not finite, for ZeRO 0; DeepSpeed does so itself at stages 1 to 3.

They have the attributes of DeepSpeed's own optimisers from which its engine learns whether a step was taken.
"""

from typing import Any

import torch
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

__all__ = ["skip_nonfinite"]


def skip_nonfinite(optimizer: torch.optim.Optimizer, clip_norm: float) -> torch.optim.Optimizer:
    """Make an optimiser skip steps with a gradient that is not finite, and clip to ``clip_norm`` (0 does not clip).

    Returns:
        The same object, whose class has changed.
    """
    skipping: Any = optimizer
    skipping.__class__ = _subclass(type(optimizer))
    skipping.clip_norm, skipping.overflow = clip_norm, False
    skipping._global_grad_norm = 0.0
    return optimizer


def _subclass(kind: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
    """Return a subclass with ``kind`` as its only base, because an object can only take a class of the same layout."""

    class SkipNonfinite(kind):  # type: ignore[valid-type, misc]
        clip_norm: float
        overflow: bool
        """Whether the last step was skipped."""
        _global_grad_norm: float

        def step(self, closure: Any = None) -> Any:
            """Take a step as `torch.optim.Optimizer.step` does, if the gradient is finite."""
            parameters = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
            norm = get_total_norm([p.grad for p in parameters])
            self._global_grad_norm = float(norm)
            self.overflow = not bool(norm.isfinite())
            if self.overflow:
                return None
            if self.clip_norm:
                clip_grads_with_norm_(parameters, self.clip_norm, norm)
            return super().step(closure)

    SkipNonfinite.__name__ = f"SkipNonfinite{kind.__name__}"
    return SkipNonfinite
