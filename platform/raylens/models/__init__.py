"""Single-device architectures, in plain torch. Parallelism is applied from outside."""

from typing import TYPE_CHECKING

from raylens.lazy import lazy_face
from raylens.models.caption_scores import caption_scores
from raylens.models.dual_encoder import DualEncoder, Embedded
from raylens.models.packed import pack
from raylens.models.weights import unfilled
from raylens.models.zero_shot import ZeroShotClassifier

if TYPE_CHECKING:
    from raylens.models.training import prepare_towers
    from raylens.models.transformer import Block
    from raylens.models.vit import at_resolution
    from raylens.models.weights import difference

__all__ = [
    "Block",
    "DualEncoder",
    "Embedded",
    "ZeroShotClassifier",
    "at_resolution",
    "caption_scores",
    "difference",
    "pack",
    "prepare_towers",
    "unfilled",
]

__getattr__ = lazy_face(
    __name__,
    {
        "Block": "transformer",
        "at_resolution": "vit",
        "difference": "weights",
        "prepare_towers": "training",
    },
)
