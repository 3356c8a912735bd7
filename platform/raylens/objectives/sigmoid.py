"""The sigmoid loss of Zhai et al. 2023 (SigLIP): each pair of the global batch is a yes-or-no question of its own.

Shapes: ``b`` local batch, ``B`` global batch, ``D`` embedding width, ``n`` rows of a chunk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional

from raylens.errors import TrainingError
from raylens.objectives.checks import check_pairs
from raylens.objectives.ranks import Ranks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor
    from torch.distributed import ProcessGroup

__all__ = ["sigmoid_loss"]


def sigmoid_loss(
    image_bD: Tensor,
    text_bD: Tensor,
    log_scale: Tensor,
    bias: Tensor,
    *,
    group: ProcessGroup | None = None,
    chunk_rows: int = 512,
) -> Tensor:
    """Sum over all pairs of ``softplus(-z (s <I, T> + bias))``, ``z`` being 1 for matches and -1 else, divided by B.

    Zhai et al. 2023, "Sigmoid Loss for Language Image Pre-Training", algorithm 1. Value, memory and the scale of the
    gradients over ranks are as in `contrastive_loss`.

    Args:
        image_bD: this rank's image embeddings ``[b, D]``, each of unit norm.
        text_bD: the matching text embeddings ``[b, D]``, each of unit norm, in the same dtype.
        log_scale: logarithm of the logit scale, one element.
        bias: added to every logit, one element; -10 at the start of training.
        group: the ranks that share the global batch, as for `contrastive_loss`.
        chunk_rows: rows worked on at a time.

    Returns:
        The loss, a scalar in fp32 (fp64 for fp64 embeddings).

    Raises:
        TrainingError: shapes, dtypes or `chunk_rows` do not fit, or the ranks' batches differ in size.
    """
    check_pairs(image_bD, text_bD, log_scale, chunk_rows)
    if bias.numel() != 1:
        raise TrainingError(f"bias has shape {tuple(bias.shape)}: it must hold one element")
    ranks = Ranks.of(group)
    ranks.agree_on_rows(image_bD)
    loss: Tensor = _SigmoidLoss.apply(image_bD, text_bD, log_scale, bias, ranks, chunk_rows)  # type: ignore[no-untyped-call]
    return loss


class _SigmoidLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        image_bD: Tensor,
        text_bD: Tensor,
        log_scale: Tensor,
        bias: Tensor,
        ranks: Ranks,
        chunk_rows: int,
    ) -> Tensor:
        with torch.autocast(image_bD.device.type, enabled=False):
            text_BD = ranks.gather_rows(text_bD)
            questions = _Questions(image_bD, text_BD, log_scale, bias, ranks.rank * len(image_bD), chunk_rows)
            total = torch.zeros(1, dtype=torch.float64, device=image_bD.device)
            for _, _, signed_nB in questions:
                # Not softplus, which torch takes for the identity above 20.
                total -= functional.logsigmoid(signed_nB.neg_()).sum(dtype=torch.float64)
        ranks.sum_in_place(total)
        ctx.ranks, ctx.chunk_rows = ranks, chunk_rows
        ctx.save_for_backward(image_bD, text_BD, log_scale, bias)
        return (total / len(text_BD)).reshape(()).to(questions.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        image_bD, text_BD, log_scale, bias = ctx.saved_tensors
        wants_image, wants_text, wants_scale, wants_bias, *_ = ctx.needs_input_grad
        with torch.autocast(image_bD.device.type, enabled=False):
            first = ctx.ranks.rank * len(image_bD)
            questions = _Questions(image_bD, text_BD, log_scale, bias, first, ctx.chunk_rows)
            dI_bD, dT_BD, d_bias = _products(questions)
            # 1/b, not 1/B: the mean over ranks that follows supplies the rest.
            factor = grad.to(questions.dtype) / len(image_bD)
            dI_bD.mul_(factor * questions.scale)
            d_log_scale = (image_bD.to(questions.dtype) * dI_bD).sum(dtype=torch.float64)
            dT_bD = ctx.ranks.sum_to_owners(dT_BD.mul_(factor * questions.scale)) if wants_text else None
        return (
            dI_bD.to(image_bD.dtype) if wants_image else None,
            dT_bD.to(text_BD.dtype) if dT_bD is not None else None,
            d_log_scale.to(log_scale.dtype).reshape(log_scale.shape) if wants_scale else None,
            (d_bias * factor).to(bias.dtype).reshape(bias.shape) if wants_bias else None,
            None,
            None,
        )


@dataclass(frozen=True)
class _Questions:
    """``-z (s <I, T> + bias)``, the arguments of softplus, of this rank's rows against all columns."""

    image_bD: Tensor
    text_BD: Tensor
    log_scale: Tensor
    bias: Tensor
    first: int
    """The global row of the first local row: the column of its matching text."""
    chunk_rows: int

    @property
    def dtype(self) -> torch.dtype:
        return torch.promote_types(self.image_bD.dtype, torch.float32)

    @property
    def scale(self) -> Tensor:
        return self.log_scale.to(self.dtype).exp().reshape(())

    def __iter__(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Local rows, their images ``[n, D]``, and the arguments ``[n, B]``, which may be overwritten."""
        text_DB, bias = self.text_BD.to(self.dtype).T, self.bias.to(self.dtype).reshape(())
        for start in range(0, len(self.image_bD), self.chunk_rows):
            rows = slice(start, min(start + self.chunk_rows, len(self.image_bD)))
            image_nD = self.image_bD[rows].to(self.dtype)
            signed_nB = torch.addmm(bias, image_nD * self.scale, text_DB)
            self.diagonal_of(signed_nB, rows).neg_()
            yield rows, image_nD, signed_nB

    def diagonal_of(self, chunk_nB: Tensor, rows: slice) -> Tensor:
        """A view of the matched pairs' entries ``[n]``."""
        return chunk_nB.diagonal(self.first + rows.start)[: len(chunk_nB)]


def _products(questions: _Questions) -> tuple[Tensor, Tensor, Tensor]:
    """``G T`` ``[b, D]``, this rank's part of ``G' I`` ``[B, D]``, and the sum of ``G``, the gradient of the logits."""
    text_BD = questions.text_BD.to(questions.dtype)
    dI_bD = text_BD.new_empty(questions.image_bD.shape)
    dT_BD, d_bias = torch.zeros_like(text_BD), text_BD.new_zeros((), dtype=torch.float64)
    for rows, image_nD, signed_nB in questions:
        G_nB = signed_nB.sigmoid_()
        questions.diagonal_of(G_nB, rows).neg_()
        d_bias += G_nB.sum(dtype=torch.float64)
        torch.mm(G_nB, text_BD, out=dI_bD[rows])
        dT_BD.addmm_(G_nB.T, image_nD)
    return dI_bD, dT_BD, d_bias
