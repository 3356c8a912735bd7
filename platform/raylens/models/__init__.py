"""Single-device architectures, in plain torch. Parallelism is applied from outside."""

from raylens.models.caption_scores import caption_scores
from raylens.models.dual_encoder import DualEncoder, Embedded
from raylens.models.packed import pack
from raylens.models.weights import unfilled
from raylens.models.zero_shot import ZeroShotClassifier

__all__ = ["DualEncoder", "Embedded", "ZeroShotClassifier", "caption_scores", "pack", "unfilled"]
