"""The learning rate as a pure function of the step, so that a resume needs no state."""

import math

from raylens.config import OptimConfig

__all__ = ["learning_rate"]


def learning_rate(optim: OptimConfig, step: int, steps: int) -> float:
    """Linear warm-up, then cosine decay to zero (Radford et al. 2021, table 18; Loshchilov and Hutter 2017).

    Args:
        optim: peak and warm-up.
        step: the step about to be taken, from 0.
        steps: steps of the whole run. A warm-up that does not fit is cut to half of them.
    """
    warmup = min(optim.warmup_steps, steps // 2)
    if step < warmup:
        return optim.peak_lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return optim.peak_lr * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
