"""The exponential moving average of weights (Polyak and Juditsky 1992), held for each worker's own fragments."""

from collections.abc import Sequence

import torch
from torch import Tensor

from raylens.train.checkpoint.fragments import WEIGHT, Fragment

__all__ = ["Ema", "decay_at"]


def decay_at(decay: float, step: int) -> float:
    """Return the decay of a step, counted from 0: lower at first, so that the initial weights are soon forgotten."""
    return min(decay, (1.0 + step) / (10.0 + step))


class Ema:
    """The moving averages of a worker's fragments, one tensor each, on the fragment's device."""

    def __init__(self, fragments: Sequence[Fragment], decay: float) -> None:
        self._decay = decay
        self._weights = [fragment.tensors[WEIGHT] for fragment in fragments]
        self._averages = [weight.detach().clone() for weight in self._weights]

    @property
    def tensors(self) -> Sequence[Tensor]:
        """Return the averages, in the order of the fragments."""
        return self._averages

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the averages towards the weights after a step, counted from 0."""
        if self._weights:
            weight = 1.0 - decay_at(self._decay, step)
            torch._foreach_lerp_(self._averages, [tensor.detach() for tensor in self._weights], weight)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange averages and weights; a second call undoes the first, bit for bit."""
        for weight, average in zip(self._weights, self._averages, strict=True):
            kept = weight.detach().clone()
            weight.copy_(average)
            average.copy_(kept)
