"""What every objective of paired embeddings asks of its arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raylens.errors import TrainingError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["check_pairs"]


def check_pairs(image_bD: Tensor, text_bD: Tensor, log_scale: Tensor, bias: Tensor | None) -> None:
    """Embeddings of pairs, a scale of one element, a bias of one element or none.

    Raises:
        TrainingError: names what does not fit.
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
