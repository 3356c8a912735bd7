"""The triplet margin loss over all negatives of the global batch: the classical baseline of joint embeddings.

Shapes: ``b`` local batch, ``B`` global batch, ``D`` embedding width.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from raylens.errors import TrainingError
from raylens.objectives.pairwise import Outcome, PairLoss, Pairs
from raylens.objectives.products import Precision, Products
from raylens.objectives.ranks import Ranks
from raylens.objectives.tiles import TILE, TileSize

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed import ProcessGroup

    from raylens.objectives.tiles import Tile

__all__ = ["triplet_loss"]


def triplet_loss(
    image_bD: Tensor,
    text_bD: Tensor,
    *,
    margin: float = 0.2,
    group: ProcessGroup | None = None,
    matmul_precision: Precision = "fp32",
    tile: TileSize = TILE,
) -> Tensor:
    """Return the sum of the hinges of all negatives, divided by B; it has a margin instead of a temperature.

    ``1/B sum_{i != j} [m - <I_i, T_i> + <I_i, T_j>]_+ + [m - <I_i, T_i> + <I_j, T_i>]_+``, the sum-of-hinges ranking
    loss of Kiros et al. 2014, "Unifying Visual-Semantic Embeddings with Multimodal Neural Language Models", equation 2,
    on unit vectors. Arguments, memory and the scale of the gradients over ranks are as in `contrastive_loss`.

    Args:
        image_bD: this rank's image embeddings ``[b, D]``, each of unit norm.
        text_bD: the matching text embeddings ``[b, D]``, each of unit norm, in the same dtype.
        margin: by how much a match's cosine should exceed any other's.
        group: the ranks that share the global batch.
        matmul_precision: what matrices are rounded to before they are multiplied.
        tile: how many cosines exist at a time.

    Returns:
        The loss, a scalar in fp32 (fp64 for fp64 embeddings).

    Raises:
        TrainingError: `margin` is not in (0, 2], shapes, dtypes or `matmul_precision` do not fit, or the ranks'
            batches differ in size.
    """
    if not 0.0 < margin <= 2.0:
        raise TrainingError(f"margin = {margin}: it must be above 0 and at most 2, the range of cosines; 0.2 is usual")
    scale_of_one = torch.zeros((), dtype=torch.float64, device=image_bD.device)
    loss = _Hinges(margin)
    return loss(image_bD, text_bD, scale_of_one, None, Ranks.of(group), Products(matmul_precision), tile)


class _Hinges(PairLoss):
    """The triplet loss.

    ``kept`` holds the matches' cosines of all ranks ``[B]``, and the number of active hinges of each match ``[b]``.
    """

    def __init__(self, margin: float) -> None:
        self.margin = margin

    def forward(self, pairs: Pairs) -> Outcome:
        tiles = pairs.tiles()
        match_B = pairs.ranks.gather_rows(tiles.matched_cosine())
        counts = torch.zeros(len(match_B) + 1, dtype=torch.float64, device=match_B.device)
        open_B, total = counts[:-1], counts[-1:]
        for tile in tiles:
            row_nm, column_nm = self._hinges(tile, match_B, pairs.own.start)
            for hinge_nm in (row_nm, column_nm):
                total += hinge_nm.clamp(min=0).sum(dtype=torch.float64)
            rows = slice(pairs.own.start + tile.rows.start, pairs.own.start + tile.rows.stop)
            open_B[rows] += (row_nm > 0).sum(1)
            open_B[tile.columns] += (column_nm > 0).sum(0)
        # A cosine that is not finite activates no hinge, and would go unnoticed.
        total += 0.0 * tiles.matched_cosine().sum()
        pairs.ranks.sum_in_place(counts)
        return Outcome((total / len(match_B)).reshape(()), tiles, (match_B, open_B[pairs.own].clone()))

    def gradient(self, tile: Tile, pairs: Pairs, outcome: Outcome) -> None:
        match_B, open_b = outcome.kept
        row_nm, column_nm = self._hinges(tile, match_B, pairs.own.start)
        tile.x_nm.copy_(row_nm > 0).add_(column_nm > 0)
        tile.diagonal.copy_(-open_b[tile.own])

    def _hinges(self, tile: Tile, match_B: Tensor, first: int) -> tuple[Tensor, Tensor]:
        """Return the arguments of the hinges of images and of texts; those of matches are far below zero."""
        tile.diagonal.fill_(-math.inf)
        match_B = match_B.to(tile.x_nm.dtype)
        match_n = match_B[first + tile.rows.start : first + tile.rows.stop, None]
        return tile.x_nm + self.margin - match_n, tile.x_nm + self.margin - match_B[tile.columns]
