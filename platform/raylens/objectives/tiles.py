"""Chunks of rows of ``E_ij = exp(s <I_i, T_j> - m)``, one after another in one buffer.

Shapes: ``b`` local batch, ``B`` global batch, ``D`` embedding width, ``n`` rows of a chunk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

__all__ = ["Tiles"]

_FP32_HEADROOM = 70.0
"""Largest exponent kept in fp32. A sum of 1M entries of exp(70) is 3e36, and its reciprocal is still a normal
number, which the backward pass needs; exp(74) would be the limit for the sum alone."""


@dataclass(frozen=True)
class Tiles:
    """This rank's rows of the exponentials, against all columns.

    The shift ``m`` depends on the scale alone, so that sums of different ranks add up: unit norms bound every
    logit by ``s``, hence ``m = max(0, s - 70)`` in fp32. In fp64 no shift is needed for ``s <= 300``.
    """

    image_bD: Tensor
    text_BD: Tensor
    """All ranks' texts, in ``scale.dtype``."""
    scale: Tensor
    """``s``, a scalar in the dtype of the computation: fp32 or fp64."""
    first: int
    """The global row of the first local row: the column of its matching text."""
    chunk_rows: int

    @property
    def shift(self) -> Tensor:
        """``m``, a scalar."""
        if self.scale.dtype == torch.float64:
            return torch.zeros_like(self.scale)
        return (self.scale - _FP32_HEADROOM).clamp(min=0)

    def __iter__(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Local rows of the chunk, their images ``[n, D]``, and ``E`` ``[n, B]`` with a diagonal of zero.

        ``E`` lives in one buffer: it is valid until the next step and may be overwritten.
        """
        b, B = self.image_bD.shape[0], self.text_BD.shape[0]
        shift = self.shift
        buffer = self.text_BD.new_empty(min(self.chunk_rows, b), B)
        for start in range(0, b, self.chunk_rows):
            rows = slice(start, min(start + self.chunk_rows, b))
            image_nD = self.image_bD[rows].to(self.scale.dtype)
            E_nB = buffer[: rows.stop - start]
            torch.mm(image_nD * self.scale, self.text_BD.T, out=E_nB)
            E_nB.sub_(shift).exp_()
            self.diagonal_of(E_nB, rows).zero_()
            yield rows, image_nD, E_nB

    def diagonal_of(self, chunk_nB: Tensor, rows: slice) -> Tensor:
        """A view of the matched pairs' entries ``[n]`` in a chunk ``[n, B]``."""
        return chunk_nB.diagonal(self.first + rows.start)[: chunk_nB.shape[0]]

    def matched_log(self) -> Tensor:
        """``log e_i = s <I_i, T_i> - m`` ``[b]`` in fp64: every digit of a small loss hangs on it."""
        text_bD = self.text_BD[self.first : self.first + self.image_bD.shape[0]]
        pairs = zip(torch.split(self.image_bD, self.chunk_rows), torch.split(text_bD, self.chunk_rows), strict=True)
        cosine_b = torch.cat([(image_nD.double() * text_nD.double()).sum(1) for image_nD, text_nD in pairs])
        return cosine_b * self.scale.double() - self.shift.double()
