"""Where the tokens of each sample lie in one long row of tokens, so that layers compute no padding.

Shapes: N tokens of all samples, B samples, T tokens of a sample.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["Group", "Layout"]

SPREAD, SHORT = 1.5, 8
"""Samples share a group up to this ratio of lengths; up to ``SHORT`` tokens, lengths do not matter."""


@dataclass(frozen=True)
class Group:
    """Neighbouring samples of like length, on which attention runs as one batch."""

    first: int
    """Where its tokens begin in the long row."""
    tokens: int
    batch: int
    longest: int
    slot_n: Tensor | None
    """Where each of its tokens stands in ``[batch x longest]``; None where all samples are equally long."""
    length_B: Tensor | None

    def spread(self, x_NW: Tensor) -> Tensor:
        """The group's tokens as ``[batch, longest, W]``, zeros behind the shorter samples."""
        x_nW = x_NW[self.first : self.first + self.tokens]
        if self.slot_n is not None:
            x_nW = _Spread.apply(x_nW, self.slot_n, self.batch * self.longest)  # type: ignore[no-untyped-call]
        return x_nW.view(self.batch, self.longest, -1)

    def gather(self, x_BTW: Tensor) -> Tensor:
        """The reverse of `spread`."""
        x_nW = x_BTW.reshape(self.batch * self.longest, -1)
        if self.slot_n is None:
            return x_nW
        gathered: Tensor = _Gather.apply(x_nW, self.slot_n)  # type: ignore[no-untyped-call]
        return gathered

    def valid(self) -> Tensor | None:
        """Which of ``[batch, 1, 1, longest]`` are tokens; None where all are."""
        if self.length_B is None:
            return None
        places_T = torch.arange(self.longest, device=self.length_B.device)
        return (places_T < self.length_B[:, None])[:, None, None]


@dataclass(frozen=True)
class Layout:
    """All groups, in the order of the long row."""

    groups: tuple[Group, ...]
    source_N: Tensor
    """Of each token, its place in the padded batch ``[B x T]``."""
    last_B: Tensor
    """Of each sample, in the order of the long row, the place of its last token."""
    rank_B: Tensor
    """Of each sample of the batch, its number in the order of the long row."""
    key_N: Tensor | None = None
    """Of each token, what its random choices hang on; None where there are none."""

    @classmethod
    def of(cls, lengths: Sequence[int], padded: int, device: torch.device) -> "Layout":
        """Samples sorted by length; ``padded`` is the row length of the batch that they come from."""
        ranked, order = torch.tensor(lengths).sort(stable=True)
        rows = order.repeat_interleave(ranked)
        stop = ranked.cumsum(0)
        places = torch.arange(int(ranked.sum())) - (stop - ranked).repeat_interleave(ranked)
        groups = tuple(_groups(ranked, places, device))
        return cls(groups, (rows * padded + places).to(device), (stop - 1).to(device), order.argsort().to(device))

    @classmethod
    def even(cls, batch: int, tokens: int, device: torch.device) -> "Layout":
        """Samples that all have as many tokens, in the batch's order."""
        rank_B = torch.arange(batch, device=device)
        group = Group(0, batch * tokens, batch, tokens, None, None)
        source_N = torch.arange(batch * tokens, device=device)
        return cls((group,), source_N, rank_B * tokens + tokens - 1, rank_B)


def _groups(ranked: Tensor, places: Tensor, device: torch.device) -> list[Group]:
    groups, at, first = [], 0, 0
    lengths = ranked.tolist()
    while at < len(lengths):
        limit = max(SHORT, int(SPREAD * lengths[at]))
        end = next((row for row in range(at, len(lengths)) if lengths[row] > limit), len(lengths))
        length_B, longest = ranked[at:end], lengths[end - 1]
        tokens = int(length_B.sum())
        if lengths[at] == longest:
            groups.append(Group(first, tokens, end - at, longest, None, None))
        else:
            row_n = torch.arange(end - at).repeat_interleave(length_B)
            slot_n = row_n * longest + places[first : first + tokens]
            groups.append(Group(first, tokens, end - at, longest, slot_n.to(device), length_B.to(device)))
        at, first = end, first + tokens
    return groups


class _Spread(torch.autograd.Function):
    """Rows to unique places among zeros. Indexing's own backward would add where a copy is enough."""

    @staticmethod
    def forward(ctx: Any, x_nW: Tensor, slot_n: Tensor, places: int) -> Tensor:
        ctx.save_for_backward(slot_n)
        return x_nW.new_zeros(places, x_nW.shape[1]).index_copy_(0, slot_n, x_nW)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (slot_n,) = ctx.saved_tensors
        return grad.index_select(0, slot_n), None, None


class _Gather(torch.autograd.Function):
    """The reverse of `_Spread`."""

    @staticmethod
    def forward(ctx: Any, x_nW: Tensor, slot_n: Tensor) -> Tensor:
        ctx.save_for_backward(slot_n)
        ctx.places = len(x_nW)
        return x_nW.index_select(0, slot_n)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (slot_n,) = ctx.saved_tensors
        return grad.new_zeros(ctx.places, grad.shape[1]).index_copy_(0, slot_n, grad), None
