"""The global batch as equal blocks of rows over the ranks of a process group.

Rank ``k`` of ``W`` holds rows ``k * b`` to ``(k + 1) * b`` of the ``B = W * b`` rows. Without an initialised
process group, and in a group of one, there is one block and no method here communicates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist

from raylens.errors import TrainingError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Ranks"]

_agreed_rows: WeakKeyDictionary[dist.ProcessGroup, int] = WeakKeyDictionary()
"""The local batch on which the members of a process group have agreed."""


@dataclass(frozen=True)
class Ranks:
    """The rank of this process among the ``size`` processes that share one global batch."""

    rank: int
    size: int
    group: dist.ProcessGroup | None

    @classmethod
    def of(cls, group: dist.ProcessGroup | None) -> Ranks:
        """Return the ranks of `group`, or of the default group if it is None; one rank alone if there is no group.

        Raises:
            TrainingError: this process is not a member of `group`.
        """
        if not (dist.is_available() and dist.is_initialized()):
            return cls(rank=0, size=1, group=None)
        group = group if group is not None else dist.group.WORLD
        rank = dist.get_rank(group)
        if rank < 0:
            raise TrainingError(
                f"group = {group}: this process (rank {dist.get_rank()} of {dist.get_world_size()}) is not "
                "a member; call the loss only in the processes of the group that is passed to it"
            )
        return cls(rank=rank, size=dist.get_world_size(group), group=group)

    def agree_on_rows(self, rows_bD: Tensor) -> None:
        """Refuse local batches of unequal size, because a gather of them would hang.

        The group's first call makes one small collective; later calls only compare on this process. A group
        therefore keeps the local batch of its first call: a rank that changes it raises at once, whereas a
        collective to detect the change would meet another collective on the ranks that did not change.

        Raises:
            TrainingError: the ranks differ (on all of them), or this rank's batch changed (on this one).
        """
        if self.group is None or self.size == 1:
            return
        rows = rows_bD.shape[0]
        agreed = _agreed_rows.get(self.group)
        if agreed is None:
            counts_W = self.gather_rows(torch.tensor([rows], device=rows_bD.device)).tolist()
            if len(set(counts_W)) > 1:
                raise TrainingError(
                    f"local batches by rank = {counts_W}: the contrastive loss needs the same number of rows "
                    "on every rank; choose a global batch that the number of workers divides"
                )
            _agreed_rows[self.group] = rows
        elif agreed != rows:
            raise TrainingError(
                f"local batch = {rows} on rank {self.rank}, but this process group began with {agreed}: drop "
                "the last incomplete batch, or pass a process group of its own (torch.distributed.new_group) "
                "for batches of another size"
            )

    def gather_rows(self, rows_bD: Tensor) -> Tensor:
        """Return all ranks' rows ``[B, ...]`` in rank order; the argument itself if there is one rank."""
        if self.size == 1:
            return rows_bD
        rows_BD = rows_bD.new_empty(self.size * rows_bD.shape[0], *rows_bD.shape[1:])
        dist.all_gather_single(rows_BD, rows_bD.contiguous(), group=self.group)
        return rows_BD

    def sum_in_place(self, values: Tensor) -> None:
        """Replace `values` by their sum over the ranks, the same to the last bit on every rank."""
        if self.size > 1:
            dist.all_reduce(values, group=self.group)

    def sum_to_owners(self, rows_BD: Tensor) -> Tensor:
        """Sum ``[B, D]`` over the ranks and return this rank's own block of rows ``[b, D]``."""
        if self.size == 1:
            return rows_BD
        rows_bD = rows_BD.new_empty(rows_BD.shape[0] // self.size, *rows_BD.shape[1:])
        dist.reduce_scatter_single(rows_bD, rows_BD, group=self.group)
        return rows_bD
