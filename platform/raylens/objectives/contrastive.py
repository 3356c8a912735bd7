"""The symmetric contrastive loss of CLIP over the global batch, without its logit matrix.

Shapes: ``b`` local batch, ``B`` global batch (``b`` times the number of ranks), ``D`` embedding width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raylens.objectives.products import Precision, Products
from raylens.objectives.ranks import Ranks
from raylens.objectives.softmax import Dense, Fused, SoftMax
from raylens.objectives.tiles import TILE, TileSize
from raylens.objectives.triton import launch

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed import ProcessGroup

__all__ = ["contrastive_dense", "contrastive_loss"]

DENSE_ENTRIES = 2**22
"""The number of a rank's logits up to which keeping them beats computing them twice: 16 MiB, measured on a CPU."""


def contrastive_loss(
    image_bD: Tensor,
    text_bD: Tensor,
    log_scale: Tensor,
    *,
    group: ProcessGroup | None = None,
    matmul_precision: Precision = "fp32",
    tile: TileSize | None = None,
) -> Tensor:
    """Return the mean of the image-to-text and the text-to-image cross-entropy over the global batch.

    Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision", section 2.3.
    The value is deterministic and the same on every rank. Memory is ``O((b + B) D)`` and a tile: no ``[b, B]`` tensor
    exists in either pass.

    The gradients are those of the global loss times the number of ranks, so that the *mean* over ranks of
    parameter gradients, which is what DDP and ZeRO compute, is the gradient of the global loss. This holds
    for `log_scale` as well, without a collective of its own. Gradients of gradients are not available.

    bf16 and fp16 embeddings are multiplied and summed in fp32, fp64 ones in fp64, unless `matmul_precision` rounds them
    first. Where a row or a column lies so far below the shift that fp32 loses it, all ranks together repeat the step in
    fp64. That is rare up to a scale of 120 and frequent beyond; above 300 fp64 may overflow too, and the loss is then
    not finite. An embedding that is not finite, on any rank, makes the loss not finite on every rank.

    Args:
        image_bD: this rank's image embeddings ``[b, D]``, each of unit norm.
        text_bD: the matching text embeddings ``[b, D]``, each of unit norm, in the same dtype.
        log_scale: logarithm of the logit scale, one element; keep it in fp32 if the towers run in bf16.
        group: the ranks that share the global batch; the default group if None. Each must call with the same
            ``b``, and a group keeps the ``b`` of its first call.
        matmul_precision: what matrices are rounded to before they are multiplied; see docs/objectives.md for its cost.
        tile: how many logits exist at a time. If None, all of them where they are few (`contrastive_dense`); on a GPU
            with a `matmul_precision` other than fp32, as many as Triton's kernels hold.

    Returns:
        The loss, a scalar in fp32 (fp64 for fp64 embeddings).

    Raises:
        TrainingError: shapes, dtypes or `matmul_precision` do not fit, or the ranks' batches differ in size.
    """
    ranks = Ranks.of(group)
    if tile is None and len(image_bD) * len(image_bD) * ranks.size <= DENSE_ENTRIES:
        return contrastive_dense(image_bD, text_bD, log_scale, group=group, matmul_precision=matmul_precision)
    fused = tile is None and matmul_precision != "fp32" and launch.available(image_bD.device)
    loss = Fused() if fused else SoftMax()
    return loss(image_bD, text_bD, log_scale, None, ranks, Products(matmul_precision), tile or TILE)


def contrastive_dense(
    image_bD: Tensor,
    text_bD: Tensor,
    log_scale: Tensor,
    *,
    group: ProcessGroup | None = None,
    matmul_precision: Precision = "fp32",
) -> Tensor:
    """Compute `contrastive_loss` in memory of ``O(b B)``: the forward pass keeps the matrix for the backward pass.

    `contrastive_loss` chooses this by itself for small batches. Arguments, value, gradients and errors are the same.
    """
    ranks = Ranks.of(group)
    tile = TileSize(max(1, len(image_bD)), max(1, len(image_bD) * ranks.size))
    return Dense()(image_bD, text_bD, log_scale, None, ranks, Products(matmul_precision), tile)
