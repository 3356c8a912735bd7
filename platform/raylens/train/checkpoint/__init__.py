"""Checkpoints: written beside training, complete or absent, and readable by any number of workers."""

from typing import TYPE_CHECKING

from raylens.lazy import lazy_face

if TYPE_CHECKING:
    from raylens.train.checkpoint.retention import best_scores, prune, steps_to_keep
    from raylens.train.checkpoint.store import Checkpoints

__all__ = [
    "Checkpoints",
    "best_scores",
    "prune",
    "steps_to_keep",
]

__getattr__ = lazy_face(
    __name__,
    {
        "Checkpoints": "store",
        "best_scores": "retention",
        "prune": "retention",
        "steps_to_keep": "retention",
    },
)
