"""Single-device architectures, in plain torch. Parallelism is applied from outside."""

from raylens.models.dual_encoder import DualEncoder
from raylens.models.zero_shot import ZeroShotClassifier

__all__ = ["DualEncoder", "ZeroShotClassifier"]
