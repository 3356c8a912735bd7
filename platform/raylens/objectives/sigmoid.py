"""The sigmoid loss of Zhai et al. 2023 (SigLIP): a binary classification of each pair of the global batch.

Shapes: ``b`` local batch, ``D`` embedding width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from raylens.objectives.pairwise import Outcome, PairLoss, Pairs
from raylens.objectives.products import Precision, Products
from raylens.objectives.ranks import Ranks
from raylens.objectives.tiles import TILE, TileSize

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed import ProcessGroup

    from raylens.objectives.tiles import Tile

__all__ = ["sigmoid_loss"]


def sigmoid_loss(
    image_bD: Tensor,
    text_bD: Tensor,
    log_scale: Tensor,
    bias: Tensor,
    *,
    group: ProcessGroup | None = None,
    matmul_precision: Precision = "fp32",
    tile: TileSize = TILE,
) -> Tensor:
    """Return the sum over all pairs of ``softplus(-z (s <I, T> + bias))`` over B; ``z`` is 1 for matches, else -1.

    Zhai et al. 2023, "Sigmoid Loss for Language Image Pre-Training", algorithm 1. Arguments, memory and the scale of
    the gradients over ranks are as in `contrastive_loss`.

    Args:
        image_bD: this rank's image embeddings ``[b, D]``, each of unit norm.
        text_bD: the matching text embeddings ``[b, D]``, each of unit norm, in the same dtype.
        log_scale: logarithm of the logit scale, one element.
        bias: added to every logit, one element; -10 at the start of training.
        group: the ranks that share the global batch.
        matmul_precision: what matrices are rounded to before they are multiplied.
        tile: how many logits exist at a time.

    Returns:
        The loss, a scalar in fp32 (fp64 for fp64 embeddings).

    Raises:
        TrainingError: shapes, dtypes or `matmul_precision` do not fit, or the ranks' batches differ in size.
    """
    return _Sigmoid()(image_bD, text_bD, log_scale, bias, Ranks.of(group), Products(matmul_precision), tile)


class _Sigmoid(PairLoss):
    def forward(self, pairs: Pairs) -> Outcome:
        total = torch.zeros(1, dtype=torch.float64, device=pairs.image_bD.device)
        tiles = pairs.tiles()
        for tile in tiles:
            # Not torch's softplus, which is the identity above 20.
            total -= functional.logsigmoid(_signed(tile, pairs).neg_()).sum(dtype=torch.float64)
        pairs.ranks.sum_in_place(total)
        return Outcome((total / len(pairs.text_BD)).reshape(()), tiles)

    def gradient(self, tile: Tile, pairs: Pairs, outcome: Outcome) -> None:  # noqa: ARG002
        _signed(tile, pairs).sigmoid_()
        tile.diagonal.neg_()


def _signed(tile: Tile, pairs: Pairs) -> Tensor:
    """Replace the logits of a tile by ``-z (s <I, T> + bias)`` and return them."""
    assert pairs.bias is not None
    tile.x_nm.add_(pairs.bias.to(tile.x_nm.dtype).reshape(()))
    tile.diagonal.neg_()
    return tile.x_nm
