"""When a run saves its state, and which checkpoints it keeps."""

from typing import Annotated

from pydantic import Field

from raylens.config.node import Node

__all__ = ["CheckpointConfig"]

Positive = Annotated[int, Field(gt=0)]


class CheckpointConfig(Node):
    """When state is saved, and how much of it is kept."""

    every_steps: Positive | None = 1000
    every_minutes: Annotated[float, Field(gt=0.0)] | None = None
    """Of wall-clock time since the one before; with both, whichever comes first. The last step is saved always."""
    keep_last: Positive = 3
    keep_every: Positive | None = None
    """Those at multiples of so many steps are kept for good."""
    keep_best: Annotated[int, Field(ge=0)] = 0
    """So many more are kept, the best by ``best_by``."""
    best_by: str = "validation_loss"
    """A metric of ``evaluation``, which says whether higher or lower is better."""
