"""The contrastive loss's two passes over the logits as Triton kernels, which keep every tile on the chip.

Shapes: ``b`` local batch, ``B`` global batch, ``D`` embedding width, ``m`` columns of a chunk. ``I`` and ``T`` are
image and text embeddings, ``E_ij = exp(s <I_i, T_j> - shift)``.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

import torch

from raylens.errors import TrainingError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["available", "exp_gradient", "exp_sums"]

_PARTIAL_SUMS = 2**24
"""The partial column sums that exist at a time: 64 MB in fp32, and 128 MB in fp64 where they are added up."""


def available(device: torch.device) -> bool:
    """Tell whether a device can run the functions below: they need Triton, and a GPU that multiplies bf16.

    A CPU counts if Triton interprets its kernels (``TRITON_INTERPRET=1``), which is for tests.
    """
    if find_spec("triton") is None:
        return False
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"


def exp_sums(
    image_bD: Tensor,
    text_BD: Tensor,
    scale: Tensor,
    shift: Tensor,
    first: int,
    *,
    matmul_precision: Literal["fp32", "tf32", "bf16"],
) -> tuple[Tensor, Tensor]:
    """Return row sums ``[b]`` and column sums ``[B]`` of ``E`` in fp64, without the matching pairs ``(i, first + i)``.

    There are no atomics: the same input gives the same bits as long as the tuned tile sizes stay, which Triton keeps in
    its cache folder. An embedding, scale or shift that is not finite makes its row and column sums not finite. Memory
    beyond the result is at most about 200 MB up to 2M columns.

    Args:
        image_bD: image embeddings in fp32 or bf16, contiguous.
        text_BD: text embeddings, in the same way.
        scale: ``s``, a scalar in fp32 on the device.
        shift: the shift, a scalar in fp32 on the device.
        first: the column that matches row 0.
        matmul_precision: what operands are rounded to, in copies; embeddings in bf16 are multiplied as they are.

    Raises:
        TrainingError: the embeddings' dtypes, layout or widths do not fit.
    """
    _check(image_bD, text_BD)
    from raylens.objectives.triton.sums import ROWS_OF_TILE, launch_sums

    image_bD, text_BD = _operand(image_bD, matmul_precision), _operand(text_BD, matmul_precision)
    b, B = len(image_bD), len(text_BD)
    r_b = torch.empty(b, dtype=torch.float64, device=image_bD.device)
    c_B = torch.zeros(B, dtype=torch.float64, device=image_bD.device)
    rows = ROWS_OF_TILE * max(8, _PARTIAL_SUMS // B)
    for top in range(0, b, rows):
        image_nD = image_bD[top : top + rows]
        row_sums_sn, column_sums_tB = launch_sums(image_nD, text_BD, scale, shift, first + top, matmul_precision)
        r_b[top : top + rows] = row_sums_sn.sum(0, dtype=torch.float64)
        c_B += column_sums_tB.sum(0, dtype=torch.float64)
    return r_b, c_B


def exp_gradient(
    image_bD: Tensor,
    text_mD: Tensor,
    a_b: Tensor,
    k_m: Tensor,
    scale: Tensor,
    shift: Tensor,
    first: int,
    out: Tensor,
    *,
    matmul_precision: Literal["fp32", "tf32", "bf16"],
) -> Tensor:
    """Write ``G_ij = E_ij (a_i + k_j)`` for a chunk of columns, with 0 for the matching pairs ``(i, first + i)``.

    Args:
        image_bD: image embeddings in fp32 or bf16, contiguous.
        text_mD: the chunk's text embeddings, in the same way.
        a_b: a number for each row, in any floating-point dtype, used in fp32.
        k_m: a number for each column, in the same way.
        scale: ``s``, a scalar in fp32 on the device.
        shift: the shift, a scalar in fp32 on the device.
        first: the chunk's column that matches row 0; negative, or beyond the chunk, if it lies outside.
        out: the result, which is overwritten: ``[b, m]`` in bf16 or fp32, with contiguous rows.
        matmul_precision: as for `exp_sums`.

    Returns:
        `out`.

    Raises:
        TrainingError: the embeddings' dtypes, layout or widths, or the shape of `out`, do not fit.
    """
    _check(image_bD, text_mD)
    if out.shape != (len(image_bD), len(text_mD)) or out.stride(1) != 1:
        raise TrainingError(
            f"out has shape {tuple(out.shape)} and strides {out.stride()}: it must be "
            f"{(len(image_bD), len(text_mD))}, with contiguous rows"
        )
    from raylens.objectives.triton.weights import launch_gradient

    image_bD, text_mD = _operand(image_bD, matmul_precision), _operand(text_mD, matmul_precision)
    launch_gradient(image_bD, text_mD, a_b.float(), k_m.float(), scale, shift, first, out, matmul_precision)
    return out


def _operand(rows: Tensor, matmul_precision: str) -> Tensor:
    """Round operands to nearest, TF32 too: a GPU would cut digits off, which makes every product a little too small."""
    if matmul_precision == "bf16":
        return rows.to(torch.bfloat16)
    if matmul_precision == "tf32" and rows.dtype == torch.float32:
        enlarged = rows * (2**13 + 1)
        return enlarged.sub_(enlarged - rows)
    return rows


def _check(image_bD: Tensor, text_BD: Tensor) -> None:
    for name, rows in (("image", image_bD), ("text", text_BD)):
        if rows.dtype not in (torch.float32, torch.bfloat16) or not rows.is_contiguous():
            raise TrainingError(
                f"{name} embeddings have dtype {rows.dtype} and strides {rows.stride()}: the kernels read "
                "contiguous fp32 or bf16"
            )
    if image_bD.shape[1] != text_BD.shape[1] or image_bD.dtype != text_BD.dtype:
        raise TrainingError(
            f"image embeddings are {tuple(image_bD.shape)} in {image_bD.dtype} and text embeddings "
            f"{tuple(text_BD.shape)} in {text_BD.dtype}: width and dtype must be the same"
        )
