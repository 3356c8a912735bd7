"""The statistics of a training step."""

from dataclasses import dataclass

__all__ = ["StepStats", "TowerStats"]

BINS = 40
"""Number of equal bins over [-1, 1] in a histogram of cosines."""


@dataclass(frozen=True)
class StepStats:
    """Statistics of one step, equal on every worker."""

    loss: float
    """Loss over the global batch."""
    logit_scale: float
    """Logit scale that the loss used, after the cap."""
    grad_norm: float
    """Norm of the whole gradient before clipping."""
    skipped: bool = False
    """Whether the step left the weights unchanged, because the loss or the gradient was not finite."""
    broken: tuple[int, ...] = ()
    """Some samples whose embeddings were not finite, if the step was skipped."""
    weight_norm: float = 0.0
    """Norm of all weights, if the step was skipped."""


@dataclass(frozen=True)
class TowerStats:
    """Statistics of the towers, from all or some of this worker's pairs in the last step."""

    image_norm: float | None = None
    """Mean norm of the image tower's output before normalisation."""
    text_norm: float | None = None
    positive_cosines: tuple[int, ...] = ()
    """Histogram of the cosines of matching pairs in `BINS` equal bins over [-1, 1]; empty without pairs."""
    negative_cosines: tuple[int, ...] = ()
    """Histogram of the cosines of all other pairs."""
    tokens: float = 0.0
    """Mean length of a caption in tokens, start and end included."""
    memory_bytes: int = 0
    """Peak memory of this worker so far: of its GPU, or of the host if it has none."""
