"""The logits of this rank's rows against all columns, a tile at a time in one buffer.

Shapes: ``b`` local batch, ``B`` global batch, ``D`` embedding width, ``n`` rows and ``m`` columns of a tile.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from raylens.errors import TrainingError
from raylens.objectives.triton.launch import exp_gradient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from raylens.objectives.products import Products

__all__ = ["TILE", "FusedTiles", "KeptTiles", "Tile", "TileSize", "Tiles"]


@dataclass(frozen=True)
class TileSize:
    """The number of logits that exist at a time. The default, 8 MiB, stays in a processor's cache.

    Raises:
        TrainingError: a tile would hold nothing.
    """

    rows: int = 512
    columns: int = 4096

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1:
            raise TrainingError(f"tile = {self.rows} x {self.columns}: rows and columns must be at least 1")


TILE = TileSize()
FUSED_ENTRIES = 2**27
"""The entries of the gradient that exist at a time on a GPU: 256 MiB in bf16, enough for products at full rate."""


@dataclass(frozen=True)
class Tile:
    """A part of the logits, which may be overwritten; it is valid until the next tile."""

    rows: slice
    """The tile's rows among this rank's rows."""
    columns: slice
    """The tile's columns among those of the global batch."""
    x_nm: Tensor
    own: slice
    """The rows of this rank whose matching column lies in the tile."""
    diagonal: Tensor
    """A view of these rows' matched entries."""


@dataclass(frozen=True)
class Tiles:
    """The logits ``x_ij = s <I_i, T_j>``, row block by row block."""

    image_bD: Tensor
    text_BD: Tensor
    """The text embeddings of all ranks."""
    scale: Tensor
    """``s``, a scalar in the dtype of the computation: fp32 or fp64."""
    first: int
    """The global row of this rank's first row, which is also the column of its matching text."""
    size: TileSize
    """The largest size of a tile; those at the edges are smaller."""
    products: Products
    unit: float = 1.0
    """A factor on the logits of tiles, for losses that want them in another unit than nats."""

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of logits and sums."""
        return self.scale.dtype

    def __iter__(self) -> Iterator[Tile]:
        """Yield all tiles; those of the same rows follow one another."""
        b, B = len(self.image_bD), len(self.text_BD)
        buffer = self.scale.new_empty(min(self.size.rows, b) * min(self.size.columns, B))
        text_BD = self.text_BD.to(self.dtype)
        for top in range(0, b, self.size.rows):
            rows = slice(top, min(top + self.size.rows, b))
            image_nD = self.image_bD[rows].to(self.dtype) * (self.scale * self.unit)
            for left in range(0, B, self.size.columns):
                columns = slice(left, min(left + self.size.columns, B))
                n, m = len(image_nD), columns.stop - left
                x_nm = buffer[: n * m].view(n, m)
                self.products.logits(image_nD, text_BD[columns], x_nm)
                yield self._tile(rows, columns, x_nm)

    def _tile(self, rows: slice, columns: slice, x_nm: Tensor) -> Tile:
        offset = self.first + rows.start - columns.start
        diagonal = x_nm.diagonal(offset) if -len(x_nm) < offset < x_nm.shape[1] else x_nm.view(-1)[:0]
        begin = min(rows.start + max(0, -offset), rows.stop)
        return Tile(rows, columns, x_nm, slice(begin, begin + len(diagonal)), diagonal)

    def matched_cosine(self) -> Tensor:
        """Return ``<I_i, T_i>``, ``[b]``, in fp64, because every digit of a small loss depends on it."""
        text_bD = self.text_BD[self.first : self.first + len(self.image_bD)]
        pairs = zip(torch.split(self.image_bD, self.size.rows), torch.split(text_bD, self.size.rows), strict=True)
        return torch.cat([(image_nD.double() * text_nD.double()).sum(1) for image_nD, text_nD in pairs])

    def products_with(self, gradient: Callable[[Tile], None], *, wants_text: bool) -> tuple[Tensor, Tensor | None]:
        """Return ``G T``, ``[b, D]``, and this rank's part of ``G' I``, ``[B, D]``.

        Args:
            gradient: a function that turns the logits of a tile, in place, into their part of ``G``.
            wants_text: whether the second product is computed.
        """
        dI_bD = self.scale.new_zeros(self.image_bD.shape)
        dT_BD = self.scale.new_zeros(self.text_BD.shape) if wants_text else None
        text_BD = self.products.operand(self.text_BD.to(self.dtype))
        image_bD = self.products.operand(self.image_bD.to(self.dtype))
        for tile in self:
            gradient(tile)
            G_nm = self.products.operand(tile.x_nm)
            self.products.add_product(G_nm, text_BD[tile.columns], dI_bD[tile.rows])
            if dT_BD is not None:
                self.products.add_product(G_nm.T, image_bD[tile.rows], dT_BD[tile.columns])
        return dI_bD, dT_BD


@dataclass(frozen=True)
class KeptTiles(Tiles):
    """The whole matrix as one tile that was computed before."""

    kept_bB: Tensor = field(kw_only=True)

    def __iter__(self) -> Iterator[Tile]:
        """The tile, which is overwritten, so that it can be iterated over only once."""
        yield self._tile(slice(0, len(self.kept_bB)), slice(0, self.kept_bB.shape[1]), self.kept_bB)


@dataclass(frozen=True)
class FusedTiles(Tiles):
    """The gradient of the contrastive loss's logits, as a Triton kernel writes it: a block of columns at a time."""

    a_b: Tensor = field(kw_only=True)
    k_B: Tensor = field(kw_only=True)
    shift: Tensor = field(kw_only=True)

    def __iter__(self) -> Iterator[Tile]:
        """Yield blocks of columns, each with all rows."""
        b, B = len(self.image_bD), len(self.text_BD)
        rounded = self.products.rounds(self.scale)
        columns = max(128, FUSED_ENTRIES // b)
        buffer = self.scale.new_empty(b * min(columns, B), dtype=torch.bfloat16 if rounded else torch.float32)
        for left in range(0, B, columns):
            part = slice(left, min(left + columns, B))
            G_bm = buffer[: b * (part.stop - left)].view(b, -1)
            weights = (self.a_b, self.k_B[part], self.scale, self.shift)
            precision, text_mD = self.products.precision, self.text_BD[part]
            exp_gradient(self.image_bD, text_mD, *weights, self.first - left, G_bm, matmul_precision=precision)
            yield self._tile(slice(0, b), part, G_bm)
