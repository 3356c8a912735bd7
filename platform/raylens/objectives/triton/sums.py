"""Triton: the kernel that sums ``E_ij = exp(s <I_i, T_j> - shift)`` over rows and over columns in one pass.

Imported only where Triton is installed; see `raylens.objectives.triton.launch` for the shapes.
"""

# mypy: disable-error-code="untyped-decorator"
# Triton publishes no types, and compiles the decorated functions from their source.

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]

from raylens.objectives.triton.weights import (
    INTERPRETED,
    exponentials,
    grouped,
    in_powers_of_two,
    product_options,
    size,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ROWS_OF_TILE", "launch_sums"]

ROWS_OF_TILE = 32 if INTERPRETED else 128


@triton.jit(do_not_specialize=["b", "first", "span", "_size"])
def _sums_kernel(
    image: tl.tensor,
    text: tl.tensor,
    scale: tl.tensor,
    shift: tl.tensor,
    row_sums: tl.tensor,
    column_sums: tl.tensor,
    b: tl.tensor,
    B: tl.tensor,
    first: tl.tensor,
    span: tl.tensor,
    D: tl.tensor,
    _size: tl.tensor,
    EVEN: tl.constexpr,
    PRECISION: tl.constexpr,
    DEPTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    FLATTEN: tl.constexpr,
) -> None:
    """Sum a row of tiles over `span` columns: row sums to ``[splits, b]``, column sums to ``[row tiles, B]``."""
    row_tile, split = grouped(tl.program_id(0), tl.cdiv(b, ROWS), tl.cdiv(B, span), 16)
    top, begin = row_tile * ROWS, split * span
    high, low, shift2 = in_powers_of_two(scale, shift)
    row_sum = tl.zeros((ROWS,), dtype=tl.float32)
    # In a flattened loop the next tile's embeddings are loaded while this tile's exponentials are computed.
    for left in tl.range(begin, tl.minimum(begin + span, B), COLUMNS, flatten=FLATTEN):
        E = exponentials(
            image, text, top, left, b, B, first, high, low, shift2, D, EVEN, PRECISION, ROWS, COLUMNS, DEPTH
        )  # fmt: skip
        row_sum += tl.sum(E, 1)
        columns = left + tl.arange(0, COLUMNS)
        tl.store(column_sums + row_tile.to(tl.int64) * B + columns, tl.sum(E, 0), mask=columns < B)
    rows = top + tl.arange(0, ROWS)
    tl.store(row_sums + split.to(tl.int64) * b + rows, row_sum, mask=rows < b)


_tuned_sums_kernel = triton.autotune(
    [
        triton.Config({"COLUMNS": columns, "FLATTEN": flatten}, num_warps=warps, num_stages=stages, maxnreg=registers)
        for columns, flatten, warps, stages, registers in (
            (256, True, 8, 3, None),
            (256, False, 8, 3, None),
            (256, False, 8, 4, None),
            (128, True, 4, 3, None),
            (128, False, 4, 3, None),
            (128, True, 8, 3, None),
            (128, True, 8, 3, 128),  # two programs share a multiprocessor: one multiplies, one exponentiates
            (128, False, 8, 2, None),
        )
    ],
    key=["D", "PRECISION", "_size"],
    cache_results=True,
)(_sums_kernel)


def launch_sums(
    image_bD: Tensor, text_BD: Tensor, scale: Tensor, shift: Tensor, first: int, matmul_precision: str
) -> tuple[Tensor, Tensor]:
    """Return partial sums in fp32 of the rows ``[splits, b]`` and of the columns ``[row tiles, B]``.

    The arguments are those of `launch.exp_sums`, with embeddings that are rounded already.
    """
    b, B = len(image_bD), len(text_BD)
    tiles, span = triton.cdiv(b, ROWS_OF_TILE), _span(triton.cdiv(b, ROWS_OF_TILE), B)
    splits = triton.cdiv(B, span)
    row_sums_sb = torch.empty(splits, b, dtype=torch.float32, device=image_bD.device)
    column_sums_tB = torch.empty(tiles, B, dtype=torch.float32, device=image_bD.device)
    size_of_problem = (b, B, first, span, image_bD.shape[1], size(b, B))
    arguments = (image_bD, text_BD, scale, shift, row_sums_sb, column_sums_tB, *size_of_problem)
    options = {"ROWS": ROWS_OF_TILE, **product_options(image_bD, matmul_precision)}
    if INTERPRETED:
        _sums_kernel[(tiles * splits,)](*arguments, **options, COLUMNS=64, FLATTEN=False)
    else:
        with torch.cuda.device_of(image_bD):
            _tuned_sums_kernel[(tiles * splits,)](*arguments, **options)
    return row_sums_sb, column_sums_tB


def _span(row_tiles: int, B: int) -> int:
    """Return the number of columns per program, a multiple of every tile's: large, but with programs to fill a device.

    It is at most 4,096, so that the sums of a program, in fp32, keep their digits.
    """
    span = 4096
    while span > 256 and row_tiles * triton.cdiv(B, span) < 1024:
        span //= 2
    return span
