"""The base of every loss over all pairs of the global batch.

It gathers the texts, computes the logits a tile at a time, and recomputes them in the backward pass.

Shapes: ``b`` local batch, ``B`` global batch, ``D`` embedding width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.function import once_differentiable

from raylens.errors import TrainingError
from raylens.objectives.tiles import Tile, Tiles

if TYPE_CHECKING:
    from torch import Tensor

    from raylens.objectives.products import Products
    from raylens.objectives.ranks import Ranks
    from raylens.objectives.tiles import TileSize

__all__ = ["Outcome", "PairLoss", "Pairs"]


@dataclass(frozen=True)
class Pairs:
    """One rank's view of the global batch: its own images, and the texts of all ranks."""

    image_bD: Tensor
    text_BD: Tensor
    """The text embeddings of all ranks."""
    log_scale: Tensor
    bias: Tensor | None
    ranks: Ranks
    products: Products
    tile: TileSize

    @property
    def dtype(self) -> torch.dtype:
        """The dtype in which half-precision embeddings are multiplied and summed."""
        return torch.promote_types(self.image_bD.dtype, torch.float32)

    @property
    def own(self) -> slice:
        """The rows of the global batch that this rank holds."""
        first = self.ranks.rank * len(self.image_bD)
        return slice(first, first + len(self.image_bD))

    def tiles(self, dtype: torch.dtype | None = None, unit: float = 1.0) -> Tiles:
        """Return the logits without bias, in ``dtype`` or by default in that of the pairs."""
        scale = self.log_scale.double().exp().reshape(()).to(dtype or self.dtype)
        return Tiles(self.image_bD, self.text_BD, scale, self.own.start, self.tile, self.products, unit)


@dataclass(frozen=True)
class Outcome:
    """The result of a forward pass: the loss, and what the backward pass needs."""

    loss: Tensor
    """The loss of the global batch, the same on every rank."""
    tiles: Tiles
    """The tiles that the backward pass goes through."""
    kept: tuple[Tensor, ...] = ()
    """The tensors that turn logits into their gradient."""


class PairLoss(ABC):
    """A loss that is a function of all logits ``s <I_i, T_j>`` of the global batch."""

    @abstractmethod
    def forward(self, pairs: Pairs) -> Outcome:
        """Return the loss and what its gradient needs. Every rank must call it (a collective operation)."""

    def tiles_again(self, pairs: Pairs, dtype: torch.dtype, kept: tuple[Tensor, ...]) -> Tiles:  # noqa: ARG002
        """Return the tiles of the backward pass: the logits, computed again."""
        return pairs.tiles(dtype)

    @abstractmethod
    def gradient(self, tile: Tile, pairs: Pairs, outcome: Outcome) -> None:
        """Turn a tile's logits in place into their gradient times ``B``."""

    def __call__(
        self,
        image_bD: Tensor,
        text_bD: Tensor,
        log_scale: Tensor,
        bias: Tensor | None,
        ranks: Ranks,
        products: Products,
        tile: TileSize,
    ) -> Tensor:
        """Return the loss of the global batch, with gradients scaled for the mean over ranks.

        Raises:
            TrainingError: shapes or dtypes do not fit, or the ranks' batches differ in size.
        """
        _check_pairs(image_bD, text_bD, log_scale, bias)
        ranks.agree_on_rows(image_bD)
        loss: Tensor = _OverPairs.apply(image_bD, text_bD, log_scale, bias, self, ranks, products, tile)  # type: ignore[no-untyped-call]
        return loss


class _OverPairs(torch.autograd.Function):
    """The passes over the tiles as one autograd function; autograd over a plain loop would keep every tile alive."""

    @staticmethod
    def forward(
        ctx: Any,
        image_bD: Tensor,
        text_bD: Tensor,
        log_scale: Tensor,
        bias: Tensor | None,
        loss: PairLoss,
        ranks: Ranks,
        products: Products,
        tile: TileSize,
    ) -> Tensor:
        # Autocast would round the logits to bf16: a spacing of 0.5 at a scale of 100.
        with torch.autocast(image_bD.device.type, enabled=False):
            pairs = Pairs(image_bD, ranks.gather_rows(text_bD), log_scale, bias, ranks, products, tile)
            with products.applied(image_bD.device):
                outcome = loss.forward(pairs)
        ctx.loss, ctx.settings, ctx.dtype = loss, (ranks, products, tile), outcome.tiles.dtype
        ctx.save_for_backward(image_bD, pairs.text_BD, log_scale, bias, *outcome.kept)
        return outcome.loss.to(pairs.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        image_bD, text_BD, log_scale, bias, *kept = ctx.saved_tensors
        wants_image, wants_text, wants_scale, wants_bias, *_ = ctx.needs_input_grad
        with torch.autocast(image_bD.device.type, enabled=False):
            pairs = Pairs(image_bD, text_BD, log_scale, bias, *ctx.settings)
            tiles = ctx.loss.tiles_again(pairs, ctx.dtype, tuple(kept))
            outcome = Outcome(grad, tiles, tuple(kept))
            d_bias = torch.zeros((), dtype=torch.float64, device=image_bD.device)

            def gradient(tile: Tile) -> None:
                ctx.loss.gradient(tile, pairs, outcome)
                if wants_bias:
                    d_bias.add_(tile.x_nm.sum(dtype=torch.float64))

            with pairs.products.applied(image_bD.device):
                dI_bD, dT_BD = tiles.products_with(gradient, wants_text=wants_text)
            # Divided by b, not B: the mean over ranks that follows divides by the number of ranks.
            factor = grad.to(tiles.dtype) / len(image_bD)
            dI_bD.mul_(factor * tiles.scale)
            dT_bD = pairs.ranks.sum_to_owners(dT_BD.mul_(factor * tiles.scale)) if dT_BD is not None else None
            d_log_scale = _dot(image_bD, dI_bD, tiles.size.rows)
        return (
            dI_bD.to(image_bD.dtype) if wants_image else None,
            dT_bD.to(text_BD.dtype) if dT_bD is not None else None,
            d_log_scale.to(log_scale.dtype).reshape(log_scale.shape) if wants_scale else None,
            (d_bias * factor).to(bias.dtype).reshape(bias.shape) if wants_bias else None,
            *[None] * 4,
        )


def _dot(image_bD: Tensor, dI_bD: Tensor, rows: int) -> Tensor:
    """Return ``sum_i <I_i, dI_i>`` in fp64, computed a few rows at a time."""
    parts = zip(image_bD.split(rows), dI_bD.split(rows), strict=True)
    return torch.stack([(image_nD.to(dI_nD.dtype) * dI_nD).sum(dtype=torch.float64) for image_nD, dI_nD in parts]).sum()


def _check_pairs(image_bD: Tensor, text_bD: Tensor, log_scale: Tensor, bias: Tensor | None) -> None:
    """Check the shapes and dtypes of embeddings, scale and bias.

    Raises:
        TrainingError: one does not fit; the message names it.
    """
    shape = tuple(image_bD.shape)
    if len(shape) != 2 or 0 in shape or text_bD.shape != image_bD.shape:
        raise TrainingError(
            f"image_bD has shape {shape} and text_bD {tuple(text_bD.shape)}: both must be [b, D], equal, and not empty"
        )
    if not image_bD.is_floating_point() or text_bD.dtype != image_bD.dtype:
        raise TrainingError(
            f"image_bD has dtype {image_bD.dtype} and text_bD {text_bD.dtype}: both must have the same "
            "floating-point dtype"
        )
    for name, value in (("log_scale", log_scale), ("bias", bias)):
        if value is not None and value.numel() != 1:
            raise TrainingError(f"{name} has shape {tuple(value.shape)}: it must hold one element")
