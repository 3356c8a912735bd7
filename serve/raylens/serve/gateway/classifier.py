"""Zero-shot classification of vectors that replicas computed: `raylens.models.ZeroShotClassifier` without torch.

A gateway computes nothing else, and torch would be most of its start and of its memory.

Shapes: C classes, P prompts of a class, D embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["Classifier"]

Vectors = NDArray[np.float32]
SMALLEST = np.float32(1e-12)
"""What a norm is taken for at least, as in torch's ``normalize``."""


@dataclass(frozen=True)
class Classifier:
    """Unit vectors of the classes and the scale that turns cosines into logits."""

    class_CD: Vectors
    logit_scale: float

    @classmethod
    def build(cls, prompts: Sequence[Sequence[str]], vectors: Sequence[Vectors], logit_scale: float) -> Self:
        """Average each class's prompt embeddings and normalise again (Radford et al. 2021, section 3.1.4).

        Args:
            prompts: for each of ``C`` classes its prompts.
            vectors: the prompts' unit vectors ``[D]``, class after class.
            logit_scale: the scale the model learned, not its logarithm.
        """
        ends = np.cumsum([len(of_class) for of_class in prompts])[:-1]
        mean_CD = np.stack([part_PD.mean(axis=0) for part_PD in np.split(np.stack(vectors), ends)])
        norm_C1 = np.maximum(np.linalg.norm(mean_CD, axis=1, keepdims=True), SMALLEST)
        return cls(mean_CD / norm_C1, logit_scale)

    def probabilities(self, image_D: Vectors) -> Vectors:
        """The probabilities ``[C]`` of the classes for a unit image embedding ``[D]``."""
        logit_C = np.float32(self.logit_scale) * (self.class_CD @ image_D)
        weight_C = np.exp(logit_C - logit_C.max())
        probability_C: Vectors = weight_C / weight_C.sum()
        return probability_C
