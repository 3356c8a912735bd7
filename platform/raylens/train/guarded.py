"""AdamW that does not step on a gradient that is not finite, for ZeRO 0; stages 1 to 3 have that of DeepSpeed.

Attributes as DeepSpeed's own optimisers have them, by which its engine knows whether a step was taken.
"""

from typing import Any

import torch
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

__all__ = ["GuardedAdamW"]


class GuardedAdamW(torch.optim.AdamW):
    """Clips to ``clip_norm`` (0: not at all), and skips where the norm of the whole gradient is not finite."""

    def __init__(self, params: Any, *, clip_norm: float = 0.0, **settings: Any) -> None:
        super().__init__(params, **settings)
        self.clip_norm = clip_norm
        self.overflow = False
        """Whether the last step was skipped."""
        self._global_grad_norm = 0.0

    def step(self, closure: Any = None) -> Any:
        """See `torch.optim.AdamW.step`."""
        parameters = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        norm = get_total_norm([p.grad for p in parameters])
        self._global_grad_norm = float(norm)
        self.overflow = not bool(norm.isfinite())
        if self.overflow:
            return None
        if self.clip_norm:
            clip_grads_with_norm_(parameters, self.clip_norm, norm)
        return super().step(closure)
