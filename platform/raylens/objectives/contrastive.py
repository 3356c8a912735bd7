"""The symmetric contrastive loss of CLIP over the global batch, without its logit matrix.

Shapes: ``b`` local batch, ``B`` global batch (``b`` times the number of ranks), ``D`` embedding width, ``n``
rows of a chunk. ``I`` and ``T`` are image and text embeddings, ``s`` the logit scale, ``m`` a shift that all
ranks share, ``E_ij = exp(s <I_i, T_j> - m)``. The derivation is in docs/objectives.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.function import once_differentiable

from raylens.objectives.checks import check_pairs
from raylens.objectives.ranks import Ranks
from raylens.objectives.tiles import Tiles

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed import ProcessGroup

__all__ = ["contrastive_loss"]


def contrastive_loss(
    image_bD: Tensor,
    text_bD: Tensor,
    log_scale: Tensor,
    *,
    group: ProcessGroup | None = None,
    chunk_rows: int = 512,
) -> Tensor:
    """Mean of the image-to-text and the text-to-image cross-entropy over the global batch.

    Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision", section 2.3.
    The value is exact, deterministic, and the same on every rank. Memory is ``O((b + B) D + chunk_rows B)``:
    no ``[b, B]`` tensor exists in either pass.

    The gradients are those of the global loss times the number of ranks, so that the *mean* over ranks of
    parameter gradients, which is what DDP and ZeRO compute, is the gradient of the global loss; that holds
    for `log_scale` as well, without a collective of its own. Gradients of gradients are not available.

    bf16 and fp16 embeddings are multiplied and summed in fp32, fp64 ones in fp64. Where a row or a column lies
    so far below the shift that fp32 loses it, all ranks together repeat the step in fp64. That is rare up to a
    scale of 120 and frequent beyond; above 300 fp64 may overflow too, and the loss is then not finite. An
    embedding that is not finite, on any rank, makes the loss not finite on every rank.

    Args:
        image_bD: this rank's image embeddings ``[b, D]``, each of unit norm.
        text_bD: the matching text embeddings ``[b, D]``, each of unit norm, in the same dtype.
        log_scale: logarithm of the logit scale, one element; keep it in fp32 where the towers run in bf16.
        group: the ranks that share the global batch; the default group where None. Each must call with the same
            ``b``, and a group keeps the ``b`` of its first call.
        chunk_rows: rows worked on at a time.

    Returns:
        The loss, a scalar in fp32 (fp64 for fp64 embeddings).

    Raises:
        TrainingError: shapes, dtypes or `chunk_rows` do not fit, or the ranks' batches differ in size.
    """
    check_pairs(image_bD, text_bD, log_scale, chunk_rows)
    ranks = Ranks.of(group)
    ranks.agree_on_rows(image_bD)
    loss: Tensor = _ContrastiveLoss.apply(image_bD, text_bD, log_scale, ranks, chunk_rows)  # type: ignore[no-untyped-call]
    return loss


class _ContrastiveLoss(torch.autograd.Function):
    """A chunk loop under plain autograd would keep every chunk alive: hence a function of its own."""

    @staticmethod
    def forward(
        ctx: Any,
        image_bD: Tensor,
        text_bD: Tensor,
        log_scale: Tensor,
        ranks: Ranks,
        chunk_rows: int,
    ) -> Tensor:
        dtype = torch.promote_types(image_bD.dtype, torch.float32)
        scale = log_scale.double().exp().reshape(())
        # Autocast would round the logits to bf16: a spacing of 0.5 at a scale of 100.
        with torch.autocast(image_bD.device.type, enabled=False):
            text_BD = ranks.gather_rows(text_bD)
            sums = _sums(_tiles(image_bD, text_BD, scale.to(dtype), ranks, chunk_rows), ranks)
            if sums.underflow and dtype != torch.float64:
                sums = _sums(_tiles(image_bD, text_BD, scale, ranks, chunk_rows), ranks)
        ctx.ranks, ctx.chunk_rows = ranks, chunk_rows
        ctx.save_for_backward(image_bD, text_BD, log_scale, sums.scale, sums.a_b, sums.k_B, sums.g_b)
        return sums.loss.to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        image_bD, text_BD, log_scale, scale, a_b, k_B, g_b = ctx.saved_tensors
        wants_image, wants_text, wants_scale, *_ = ctx.needs_input_grad
        # 1/(2b), not 1/(2B): the mean over ranks that follows supplies the rest.
        factor = grad.to(scale.dtype) * scale / (2 * image_bD.shape[0])
        with torch.autocast(image_bD.device.type, enabled=False):
            tiles = _tiles(image_bD, text_BD, scale, ctx.ranks, ctx.chunk_rows)
            dI_bD, dT_BD = _products(tiles, a_b, k_B, g_b, wants_text=wants_text)
            dI_bD.mul_(factor)
            dT_bD = ctx.ranks.sum_to_owners(dT_BD.mul_(factor)) if dT_BD is not None else None
            d_log_scale = (image_bD.to(scale.dtype) * dI_bD).sum(dtype=torch.float64)
        return (
            dI_bD.to(image_bD.dtype) if wants_image else None,
            dT_bD.to(text_BD.dtype) if dT_bD is not None else None,
            d_log_scale.to(log_scale.dtype).reshape(log_scale.shape) if wants_scale else None,
            None,
            None,
        )


@dataclass(frozen=True)
class _Sums:
    """The loss, and what the backward pass needs to rebuild the gradient of a logit from ``E``."""

    loss: Tensor
    scale: Tensor
    a_b: Tensor
    """Reciprocals of the row totals."""
    k_B: Tensor
    """Reciprocals of the column totals."""
    g_b: Tensor
    """Gradients of the matched pairs' logits, times ``2B``."""
    underflow: bool


def _sums(tiles: Tiles, ranks: Ranks) -> _Sums:
    """Row and column sums of the off-diagonal ``E``, and the loss from them; one all-reduce.

    With the diagonal left out of the sums the loss of row ``i`` is ``log1p(r_i / e_i)``. The difference
    ``logsumexp - x_ii`` has lost every digit where the loss is small. All per-row arithmetic is in fp64.
    """
    b, B, dtype = tiles.image_bD.shape[0], tiles.text_BD.shape[0], tiles.scale.dtype
    own = slice(tiles.first, tiles.first + b)
    r_b = torch.zeros(b, dtype=torch.float64, device=tiles.text_BD.device)
    shared = r_b.new_zeros(2 * B + 2)
    c_B, e_B, row_loss, row_underflow = torch.split(shared, [B, B, 1, 1])
    for rows, _, E_nB in tiles:
        r_b[rows] = E_nB.sum(1)
        c_B += E_nB.sum(0)
    log_e_b = tiles.matched_log()
    e_b = log_e_b.exp()
    e_B[own] = e_b
    # An entry that is not finite always shows in its matched logit, and may hide from every other term.
    row_loss += torch.log1p(r_b / e_b).sum() + 0.0 * log_e_b.sum()
    # Each entry that underflows loses up to `tiny`: below this total their sum may exceed a rounding error.
    # Comparisons with NaN are false, so that the ranks always agree on whether to repeat.
    floor = B * torch.finfo(dtype).tiny / torch.finfo(dtype).eps
    row_underflow += (r_b + e_b < floor).any()
    ranks.sum_in_place(shared)
    underflow = (row_underflow > 0) | (c_B + e_B < floor).any()
    a_b, k_B = 1.0 / (r_b + e_b), 1.0 / (c_B + e_B)
    return _Sums(
        loss=(row_loss + torch.log1p(c_B / e_B).sum()).reshape(()) / (2 * B),
        scale=tiles.scale,
        a_b=a_b.to(dtype),
        k_B=k_B.to(dtype),
        g_b=-(r_b * a_b + c_B[own] * k_B[own]).to(dtype),
        underflow=bool(underflow),
    )


def _products(tiles: Tiles, a_b: Tensor, k_B: Tensor, g_b: Tensor, *, wants_text: bool) -> tuple[Tensor, Tensor | None]:
    """``G T`` ``[b, D]`` and this rank's part of ``G' I`` ``[B, D]``, ``G / 2B`` being the logits' gradient."""
    dI_bD = tiles.image_bD.new_empty(tiles.image_bD.shape, dtype=tiles.scale.dtype)
    dT_BD = torch.zeros_like(tiles.text_BD) if wants_text else None
    buffer = k_B.new_empty(min(tiles.chunk_rows, len(a_b)), len(k_B))
    for rows, image_nD, E_nB in tiles:
        weight_nB = torch.add(a_b[rows, None], k_B, out=buffer[: len(E_nB)])
        G_nB = E_nB.mul_(weight_nB)
        tiles.diagonal_of(G_nB, rows).copy_(g_b[rows])
        torch.mm(G_nB, tiles.text_BD, out=dI_bD[rows])
        if dT_BD is not None:
            dT_BD.addmm_(G_nB.T, image_nD)
    return dI_bD, dT_BD


def _tiles(image_bD: Tensor, text_BD: Tensor, scale: Tensor, ranks: Ranks, chunk_rows: int) -> Tiles:
    first = ranks.rank * image_bD.shape[0]
    return Tiles(image_bD, text_BD.to(scale.dtype), scale, first, chunk_rows)
