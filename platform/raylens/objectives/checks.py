"""What every objective of paired embeddings asks of its arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raylens.errors import TrainingError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["check_pairs"]


def check_pairs(image_bD: Tensor, text_bD: Tensor, log_scale: Tensor, chunk_rows: int) -> None:
    """Embeddings of pairs, and a scale of one element.

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
    if log_scale.numel() != 1:
        raise TrainingError(f"log_scale has shape {tuple(log_scale.shape)}: it must hold one element")
    if chunk_rows < 1:
        raise TrainingError(f"chunk_rows = {chunk_rows}: it must be at least 1")
