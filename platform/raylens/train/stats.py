"""What a training step tells of itself."""

from dataclasses import dataclass

__all__ = ["StepStats"]


@dataclass(frozen=True)
class StepStats:
    """Figures of one step, the same on every worker."""

    loss: float
    """Over the global batch."""
    logit_scale: float
    """In use, that is below its cap."""
    grad_norm: float
    """Of the whole gradient, before it was clipped."""
    skipped: bool = False
    """Whether the weights were left as they were, because loss or gradient were not finite."""
    broken: tuple[int, ...] = ()
    """Of a skipped step, samples whose embeddings were not finite: a few."""
    weight_norm: float = 0.0
    """Of a skipped step, the norm of all weights."""
