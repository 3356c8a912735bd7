"""The settings of checkpoints: when a run saves its state, and which checkpoints it keeps."""

from typing import Annotated

from pydantic import Field

from raylens.config.node import Node

__all__ = ["CheckpointConfig"]

Positive = Annotated[int, Field(gt=0)]


class CheckpointConfig(Node):
    """When a run saves its state, and which checkpoints it keeps."""

    every_steps: Positive | None = 1000
    every_minutes: Annotated[float, Field(gt=0.0)] | None = None
    """Minutes of wall-clock time between checkpoints. With ``every_steps`` too, whichever comes first counts. The last
    step is always saved."""
    keep_last: Positive = 3
    keep_every: Positive | None = None
    """Checkpoints at multiples of this number of steps are kept for good."""
    keep_best: Annotated[int, Field(ge=0)] = 0
    """The number of further checkpoints that are kept, the best by ``best_by``."""
    best_by: str = "validation_loss"
    """A metric of ``evaluation``, which determines whether higher or lower is better."""
