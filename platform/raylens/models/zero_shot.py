"""The zero-shot classifier: class prompts as the weights of a linear layer (Radford et al. 2021, section 3.1).

Shapes: B batch, C classes, P prompts of a class, D embedding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["ZeroShotClassifier"]


@dataclass(frozen=True)
class ZeroShotClassifier:
    """A linear classifier: unit vectors of the classes, and the scale that turns cosines into logits."""

    class_CD: Tensor
    logit_scale: float

    @classmethod
    def build(
        cls,
        prompts: Sequence[Sequence[str]],
        encode: Callable[[Sequence[str]], Tensor],
        logit_scale: float,
    ) -> "ZeroShotClassifier":
        """Average each class's prompt embeddings and normalise the mean (section 3.1.4).

        Args:
            prompts: the prompts of each of ``C`` classes.
            encode: a function from texts to unit vectors ``[n, D]``.
            logit_scale: the scale that the model learned, not its logarithm.
        """
        flat = [prompt for of_class in prompts for prompt in of_class]
        parts = torch.split(encode(flat), [len(of_class) for of_class in prompts])
        means = [part.mean(dim=0) for part in parts]
        return cls(functional.normalize(torch.stack(means), dim=-1), logit_scale)

    def logits(self, image_BD: Tensor) -> Tensor:
        """Return the logits ``[B, C]`` of unit image embeddings ``[B, D]``."""
        return self.logit_scale * image_BD @ self.class_CD.T

    def probabilities(self, image_BD: Tensor) -> Tensor:
        """Return the class probabilities ``[B, C]`` of unit image embeddings ``[B, D]``."""
        return self.logits(image_BD).softmax(dim=-1)
