"""The exponential moving average of weights (Polyak and Juditsky 1992), of each worker's fragments alone."""

from collections.abc import Sequence

import torch
from torch import Tensor

from raylens.train.checkpoint.fragments import WEIGHT, Fragment

__all__ = ["Ema", "decay_at"]


def decay_at(decay: float, step: int) -> float:
    """The decay of a step from 0: lower at first, so that the average does not hang on the weights of the beginning."""
    return min(decay, (1.0 + step) / (10.0 + step))


class Ema:
    """One tensor for each fragment, on its device."""

    def __init__(self, fragments: Sequence[Fragment], decay: float) -> None:
        self._decay = decay
        self._weights = [fragment.tensors[WEIGHT] for fragment in fragments]
        self._averages = [weight.detach().clone() for weight in self._weights]

    def of(self, number: int) -> Tensor:
        """The average of the fragment with this number."""
        return self._averages[number]

    @torch.no_grad()
    def take(self, step: int) -> None:
        """Come nearer to the weights after a step, counted from 0."""
        if self._weights:
            weight = 1.0 - decay_at(self._decay, step)
            torch._foreach_lerp_(self._averages, [one.detach() for one in self._weights], weight)

    @torch.no_grad()
    def swap(self) -> None:
        """Put the averages where the weights are, and the weights aside; once more undoes it, bit for bit."""
        for weight, average in zip(self._weights, self._averages, strict=True):
            kept = weight.detach().clone()
            weight.copy_(average)
            average.copy_(kept)
