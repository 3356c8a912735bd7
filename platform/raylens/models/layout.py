"""The layout of a batch's tokens in one long row, so that layers compute no padding.

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
"""The largest ratio of lengths within a group; lengths up to ``SHORT`` tokens count as equal."""


@dataclass(frozen=True)
class Group:
    """Neighbouring samples of similar length, on which attention runs as one batch."""

    first: int
    """The position of the group's first token in the long row."""
    tokens: int
    batch: int
    longest: int
    slot_n: Tensor | None
    """The index of each of the group's tokens in ``[batch x longest]``; None where all samples are equally long."""
    length_B: Tensor | None

    def spread(self, x_NW: Tensor) -> Tensor:
        """Return the group's tokens as ``[batch, longest, W]``, with zeros after the shorter samples."""
        x_nW = x_NW[self.first : self.first + self.tokens]
        if self.slot_n is not None:
            x_nW = _Spread.apply(x_nW, self.slot_n, self.batch * self.longest)  # type: ignore[no-untyped-call]
        return x_nW.view(self.batch, self.longest, -1)

    def gather(self, x_BTW: Tensor) -> Tensor:
        """Return ``[batch, longest, W]`` as rows of tokens again, the reverse of `spread`."""
        x_nW = x_BTW.reshape(self.batch * self.longest, -1)
        if self.slot_n is None:
            return x_nW
        gathered: Tensor = _Gather.apply(x_nW, self.slot_n)  # type: ignore[no-untyped-call]
        return gathered

    def valid(self) -> Tensor | None:
        """Return a mask ``[batch, 1, 1, longest]`` of the positions that hold tokens; None where all of them do."""
        if self.length_B is None:
            return None
        places_T = torch.arange(self.longest, device=self.length_B.device)
        return (places_T < self.length_B[:, None])[:, None, None]


@dataclass(frozen=True)
class Layout:
    """The groups of a batch, in the order of the long row."""

    groups: tuple[Group, ...]
    source_N: Tensor
    """Each token's index in the padded batch ``[B x T]``."""
    last_B: Tensor
    """The position of each sample's last token, for samples in the order of the long row."""
    rank_B: Tensor
    """The position of each sample of the batch in the order of the long row."""
    key_N: Tensor | None = None
    """The key on which each token's random choices depend; None where there are none."""

    @classmethod
    def of(cls, lengths: Sequence[int], padded: int, device: torch.device) -> "Layout":
        """Lay out samples sorted by length; ``padded`` is the row length of the batch that they come from."""
        ranked, order = torch.tensor(lengths).sort(stable=True)
        rows = order.repeat_interleave(ranked)
        stop = ranked.cumsum(0)
        positions = torch.arange(int(ranked.sum())) - (stop - ranked).repeat_interleave(ranked)
        groups = tuple(_groups(ranked, positions, device))
        return cls(groups, (rows * padded + positions).to(device), (stop - 1).to(device), order.argsort().to(device))

    @classmethod
    def even(cls, batch: int, tokens: int, device: torch.device) -> "Layout":
        """Lay out samples that all have the same number of tokens, in the batch's order."""
        rank_B = torch.arange(batch, device=device)
        group = Group(0, batch * tokens, batch, tokens, None, None)
        source_N = torch.arange(batch * tokens, device=device)
        return cls((group,), source_N, rank_B * tokens + tokens - 1, rank_B)


def _groups(ranked: Tensor, positions: Tensor, device: torch.device) -> list[Group]:
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
            slot_n = row_n * longest + positions[first : first + tokens]
            groups.append(Group(first, tokens, end - at, longest, slot_n.to(device), length_B.to(device)))
        at, first = end, first + tokens
    return groups


class _Spread(torch.autograd.Function):
    """Copy rows to unique slots among zeros. The backward pass of plain indexing would add where a copy is enough."""

    @staticmethod
    def forward(ctx: Any, x_nW: Tensor, slot_n: Tensor, slots: int) -> Tensor:
        ctx.save_for_backward(slot_n)
        return x_nW.new_zeros(slots, x_nW.shape[1]).index_copy_(0, slot_n, x_nW)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (slot_n,) = ctx.saved_tensors
        return grad.index_select(0, slot_n), None, None


class _Gather(torch.autograd.Function):
    """Copy rows from unique slots, the reverse of `_Spread`."""

    @staticmethod
    def forward(ctx: Any, x_nW: Tensor, slot_n: Tensor) -> Tensor:
        ctx.save_for_backward(slot_n)
        ctx.slots = len(x_nW)
        return x_nW.index_select(0, slot_n)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (slot_n,) = ctx.saved_tensors
        return grad.new_zeros(ctx.slots, grad.shape[1]).index_copy_(0, slot_n, grad), None
