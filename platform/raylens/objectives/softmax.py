"""The contrastive loss's passes over the logits: a tile at a time, with all of them kept, or by Triton's kernels.

Shapes: ``b`` local batch, ``B`` global batch, ``D`` embedding width, ``n`` rows and ``m`` columns of a tile. ``I`` and
``T`` are image and text embeddings, ``s`` the logit scale, ``m`` a shift that all ranks share,
``E_ij = exp(s <I_i, T_j> - m)``. The derivation is in docs/objectives.md.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from raylens.objectives.pairwise import Outcome, PairLoss, Pairs
from raylens.objectives.tiles import FusedTiles, KeptTiles
from raylens.objectives.triton import launch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor

    from raylens.objectives.tiles import Tile, Tiles

__all__ = ["Dense", "Fused", "SoftMax"]

LOG2_E = math.log2(math.e)
"""The factor from nats to bits. Tiles are in bits: ``exp2`` takes a quarter of the time of ``exp`` on a CPU."""
FP32_HEADROOM = 70.0
"""The largest exponent kept in fp32. A sum of 1M entries of exp(70) is 3e36, and its reciprocal is still a normal
number, which the backward pass needs; exp(74) would be the limit for the sum alone."""


class SoftMax(PairLoss):
    """The contrastive loss, a tile at a time.

    ``kept`` holds ``a_b`` and ``k_B``, reciprocals of row and column totals, and ``g_b``, gradients of the matches.
    """

    def forward(self, pairs: Pairs) -> Outcome:
        """Compute the tiles in fp32, and once more in fp64 if fp32 lost a row or a column."""
        tiles = pairs.tiles(unit=LOG2_E)
        outcome, underflow = _summed(pairs, tiles, *_sums(tiles, _exponentials(tiles)))
        if underflow and pairs.dtype != torch.float64:
            tiles = pairs.tiles(torch.float64, LOG2_E)
            outcome, _ = _summed(pairs, tiles, *_sums(tiles, _exponentials(tiles)))
        return outcome

    def tiles_again(self, pairs: Pairs, dtype: torch.dtype, kept: tuple[Tensor, ...]) -> Tiles:  # noqa: ARG002
        """Implement `PairLoss.tiles_again`: compute the logits again."""
        return pairs.tiles(dtype, LOG2_E)

    def gradient(self, tile: Tile, pairs: Pairs, outcome: Outcome) -> None:  # noqa: ARG002
        """Implement `PairLoss.gradient` for the contrastive loss."""
        tile.x_nm.sub_(_shift(outcome.tiles)).exp2_()
        _weigh(tile, outcome)


class Dense(SoftMax):
    """The contrastive loss that keeps ``E_bB`` as well, if fp32 holds it."""

    def forward(self, pairs: Pairs) -> Outcome:
        """Implement `PairLoss.forward`; see `SoftMax.forward` for its repetition in fp64."""
        tiles = pairs.tiles(unit=LOG2_E)
        (tile,) = _exponentials(tiles)
        outcome, underflow = _summed(pairs, tiles, *_sums(tiles, [tile]))
        if underflow and pairs.dtype != torch.float64:
            return super().forward(pairs)
        return Outcome(outcome.loss, tiles, (*outcome.kept, tile.x_nm))

    def tiles_again(self, pairs: Pairs, dtype: torch.dtype, kept: tuple[Tensor, ...]) -> Tiles:
        """Return the one tile that was kept."""
        tiles = super().tiles_again(pairs, dtype, kept)
        return KeptTiles(**vars(tiles), kept_bB=kept[3]) if len(kept) > 3 else tiles

    def gradient(self, tile: Tile, pairs: Pairs, outcome: Outcome) -> None:
        """Implement `PairLoss.gradient` for the contrastive loss."""
        if isinstance(outcome.tiles, KeptTiles):
            _weigh(tile, outcome)
        else:
            super().gradient(tile, pairs, outcome)


class Fused(SoftMax):
    """The contrastive loss by Triton's kernels instead of a loop over tiles, if fp32 holds the sums."""

    def forward(self, pairs: Pairs) -> Outcome:
        """Implement `PairLoss.forward`; see `SoftMax.forward` for its repetition in fp64."""
        if pairs.dtype == torch.float64:
            return super().forward(pairs)
        tiles = pairs.tiles()
        image_bD, text_BD = _readable(pairs)
        shift = _shift(tiles) / LOG2_E
        precision = pairs.products.precision
        sums = launch.exp_sums(image_bD, text_BD, tiles.scale, shift, pairs.own.start, matmul_precision=precision)
        outcome, underflow = _summed(pairs, tiles, *sums)
        return super().forward(pairs) if underflow else outcome

    def tiles_again(self, pairs: Pairs, dtype: torch.dtype, kept: tuple[Tensor, ...]) -> Tiles:
        """Return blocks of the gradient itself, as the kernels compute it."""
        tiles = super().tiles_again(pairs, dtype, kept)
        if dtype == torch.float64:
            return tiles
        image_bD, text_BD = _readable(pairs)
        weights = {"a_b": kept[0], "k_B": kept[1], "shift": _shift(tiles) / LOG2_E}
        return FusedTiles(**vars(tiles) | {"image_bD": image_bD, "text_BD": text_BD} | weights)

    def gradient(self, tile: Tile, pairs: Pairs, outcome: Outcome) -> None:
        """Set the gradient of the matching pairs, which the kernel leaves out."""
        if isinstance(outcome.tiles, FusedTiles):
            tile.diagonal.copy_(outcome.kept[2][tile.own])
        else:
            super().gradient(tile, pairs, outcome)


def _readable(pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Return the embeddings in the layout that the kernels read."""
    rounded = pairs.products.precision == "bf16" or pairs.image_bD.dtype == torch.float16
    dtype = torch.bfloat16 if pairs.products.precision == "bf16" else torch.float32
    sides = (pairs.image_bD, pairs.text_BD)
    image_bD, text_BD = ((side.to(dtype) if rounded else side).contiguous() for side in sides)
    return image_bD, text_BD


def _weigh(tile: Tile, outcome: Outcome) -> None:
    """Turn ``E`` in place into the gradient of the logits."""
    a_b, k_B, g_b, *_ = outcome.kept
    tile.x_nm.mul_(torch.add(a_b[tile.rows, None], k_B[tile.columns]))
    tile.diagonal.copy_(g_b[tile.own])


def _shift(tiles: Tiles) -> Tensor:
    """Return ``m log2(e)``, a scalar. It depends on the scale alone, so that sums of different ranks can be added.

    Unit norms bound every logit by ``s``, hence ``m = max(0, s - 70)`` in fp32. fp64 needs no shift up to ``s = 300``.
    """
    if tiles.dtype == torch.float64:
        return torch.zeros_like(tiles.scale)
    return (tiles.scale - FP32_HEADROOM).clamp(min=0) * LOG2_E


def _exponentials(tiles: Tiles) -> Iterator[Tile]:
    """Replace the logits by ``E``, with zero for the matches, and yield the tiles."""
    shift = _shift(tiles)
    for tile in tiles:
        tile.x_nm.sub_(shift).exp2_()
        tile.diagonal.zero_()
        yield tile


def _sums(tiles: Tiles, exponentials: Iterable[Tile]) -> tuple[Tensor, Tensor]:
    """Return the sums of ``E`` over rows ``[b]`` and over columns ``[B]``, in fp64."""
    r_b = torch.zeros(len(tiles.image_bD), dtype=torch.float64, device=tiles.image_bD.device)
    c_B = r_b.new_zeros(len(tiles.text_BD))
    for tile in exponentials:
        r_b[tile.rows] += tile.x_nm.sum(1)
        c_B[tile.columns] += tile.x_nm.sum(0)
    return r_b, c_B


def _summed(pairs: Pairs, tiles: Tiles, r_b: Tensor, own_c_B: Tensor) -> tuple[Outcome, bool]:
    """Return the loss from this rank's sums of the off-diagonal ``E``, and whether fp32 lost any, by one all-reduce.

    With the diagonal left out of the sums, the loss of row ``i`` is ``log1p(r_i / e_i)``. The difference
    ``logsumexp - x_ii`` would lose every digit where the loss is small. All per-row arithmetic is in fp64.
    """
    B, dtype = len(pairs.text_BD), tiles.dtype
    shared = torch.zeros(2 * B + 2, dtype=torch.float64, device=pairs.text_BD.device)
    c_B, e_B, row_loss, row_underflow = torch.split(shared, [B, B, 1, 1])
    c_B.copy_(own_c_B)
    log_e_b = tiles.matched_cosine() * tiles.scale.double() - _shift(tiles).double() / LOG2_E
    e_b = log_e_b.exp()
    e_B[pairs.own] = e_b
    # An embedding that is not finite always shows in its matched logit, and may not show in any other term.
    row_loss += torch.log1p(r_b / e_b).sum() + 0.0 * log_e_b.sum()
    # Each entry that underflows loses up to `tiny`: below this total, the sum of these losses may exceed rounding.
    # Comparisons with NaN are false, so the ranks always agree on whether to repeat.
    floor = B * torch.finfo(dtype).tiny / torch.finfo(dtype).eps
    row_underflow += (r_b + e_b < floor).any()
    pairs.ranks.sum_in_place(shared)
    underflow = (row_underflow > 0) | (c_B + e_B < floor).any()
    a_b, k_B = 1.0 / (r_b + e_b), 1.0 / (c_B + e_B)
    loss = (row_loss + torch.log1p(c_B / e_B).sum()).reshape(()) / (2 * B)
    g_b = -(r_b * a_b + c_B[pairs.own] * k_B[pairs.own])
    # Halved here, so that the gradient of the mean of both directions needs no further factor.
    return Outcome(loss, tiles, tuple((x / 2).to(dtype) for x in (a_b, k_B, g_b))), bool(underflow)
