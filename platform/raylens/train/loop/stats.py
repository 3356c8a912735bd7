"""What a training step tells of itself."""

from dataclasses import dataclass

__all__ = ["StepStats", "TowerStats"]

BINS = 40
"""Equal ones over [-1, 1]."""


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


@dataclass(frozen=True)
class TowerStats:
    """What is looked at now and then: of this worker's pairs of the last step, or a part of them."""

    image_norm: float | None = None
    """Mean length of the image tower's output, before it is made a unit vector."""
    text_norm: float | None = None
    positive_cosines: tuple[int, ...] = ()
    """Of matching pairs: how many in each of `BINS` equal bins over [-1, 1]. Empty where nothing is contrasted."""
    negative_cosines: tuple[int, ...] = ()
    """Of other pairs."""
    tokens: float = 0.0
    """Mean length of a caption, marks included."""
    memory_bytes: int = 0
    """The most that this worker has taken so far: of the GPU, or of the host where there is none."""
