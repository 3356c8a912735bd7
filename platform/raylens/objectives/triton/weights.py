"""Triton: a tile of ``E_ij = exp(s <I_i, T_j> - shift)``, and the kernel that weights it into the logits' gradient.

Imported only where Triton is installed; see `raylens.objectives.triton.launch` for the shapes.
"""

# mypy: disable-error-code="untyped-decorator"
# Triton publishes no types, and compiles the decorated functions from their source.

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["INTERPRETED", "exponentials", "grouped", "in_powers_of_two", "launch_gradient", "product_options", "size"]

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
"""Whether Triton's interpreter runs the kernels of this process in Python, on the CPU."""


@triton.jit
def grouped(program: tl.tensor, row_tiles: tl.tensor, column_tiles: tl.tensor, GROUP: tl.constexpr) -> tl.tensor:
    """Return a program's row and column tile; GROUP row tiles share their columns while the L2 cache holds them."""
    together = GROUP * column_tiles
    top = program // together * GROUP
    height = tl.minimum(row_tiles - top, GROUP)
    return top + program % together % height, program % together // height


@triton.jit
def in_powers_of_two(scale: tl.tensor, shift: tl.tensor) -> tl.tensor:
    """Return the scale in two parts, and the shift, with ``exp(s c - shift) = 2 ** (high c + (low c - shift2))``.

    The low part keeps the digits of ``s log2(e)`` that fp32 has no room for. It is always below zero: if ``c`` is
    infinite, the two products then have opposite signs and yield NaN, whereas ``exp(-inf) = 0`` would hide it.
    """
    scale2 = tl.load(scale).to(tl.float64) * 1.4426950408889634
    high = (scale2 * 1.00000011920928955078125).to(tl.float32)
    low = (scale2 - high.to(tl.float64)).to(tl.float32)
    shift2 = (tl.load(shift).to(tl.float64) * 1.4426950408889634).to(tl.float32)
    return high, low, shift2


@triton.jit
def exponentials(
    image: tl.tensor,
    text: tl.tensor,
    top: tl.tensor,
    left: tl.tensor,
    b: tl.tensor,
    B: tl.tensor,
    first: tl.tensor,
    high: tl.tensor,
    low: tl.tensor,
    shift2: tl.tensor,
    D: tl.tensor,
    EVEN: tl.constexpr,
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
) -> tl.tensor:
    """Return ``E`` of the tile at row `top` and column `left`, with 0 outside the matrix and for matching pairs."""
    rows, columns, depth = top + tl.arange(0, ROWS), left + tl.arange(0, COLUMNS), tl.arange(0, DEPTH)
    # Rows outside the matrix read the last row: the loop needs no mask for them, and their results are removed below.
    image_at = image + tl.minimum(rows, b - 1).to(tl.int64)[:, None] * D + depth[None, :]
    text_at = text + tl.minimum(columns, B - 1).to(tl.int64)[None, :] * D + depth[:, None]
    cosine = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for start in range(0, D, DEPTH):
        if EVEN:
            image_tile, text_tile = tl.load(image_at + start), tl.load(text_at + start)
        else:
            image_tile = tl.load(image_at + start, mask=start + depth[None, :] < D, other=0.0)
            text_tile = tl.load(text_at + start, mask=start + depth[:, None] < D, other=0.0)
        if INTERPRETED:  # it would multiply the bits of bf16 as integers
            image_tile, text_tile = image_tile.to(tl.float32), text_tile.to(tl.float32)
        cosine = tl.dot(image_tile, text_tile, cosine, input_precision=PRECISION)
    E = tl.exp2(tl.fma(cosine, high, tl.fma(cosine, low, -shift2)))
    matched = first + top - left
    if (top + ROWS > b) | (left + COLUMNS > B) | ((matched > -ROWS) & (matched < COLUMNS)):
        kept = (rows < b)[:, None] & (columns < B)[None, :] & (columns[None, :] - rows[:, None] != first)
        E = tl.where(kept, E, 0.0)
    return E


@triton.jit(do_not_specialize=["b", "first", "_size"])
def _gradient_kernel(
    image: tl.tensor,
    text: tl.tensor,
    a: tl.tensor,
    k: tl.tensor,
    scale: tl.tensor,
    shift: tl.tensor,
    out: tl.tensor,
    b: tl.tensor,
    m: tl.tensor,
    stride: tl.tensor,
    first: tl.tensor,
    D: tl.tensor,
    _size: tl.tensor,
    EVEN: tl.constexpr,
    PRECISION: tl.constexpr,
    DEPTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    row_tile, column_tile = grouped(tl.program_id(0), tl.cdiv(b, ROWS), tl.cdiv(m, COLUMNS), 8)
    top, left = row_tile * ROWS, column_tile * COLUMNS
    high, low, shift2 = in_powers_of_two(scale, shift)
    E = exponentials(
        image, text, top, left, b, m, first, high, low, shift2, D, EVEN, PRECISION, ROWS, COLUMNS, DEPTH
    )  # fmt: skip
    rows, columns = top + tl.arange(0, ROWS), left + tl.arange(0, COLUMNS)
    a_n = tl.load(a + rows, mask=rows < b, other=0.0)
    k_n = tl.load(k + columns, mask=columns < m, other=0.0)
    G = E * (a_n[:, None] + k_n[None, :])
    at = out + rows.to(tl.int64)[:, None] * stride + columns[None, :]
    tl.store(at, G.to(out.dtype.element_ty), mask=(rows < b)[:, None] & (columns < m)[None, :])


_tuned_gradient_kernel = triton.autotune(
    [
        triton.Config({"ROWS": rows, "COLUMNS": columns}, num_warps=warps, num_stages=stages)
        for rows, columns, warps, stages in (
            (128, 256, 8, 3),
            (128, 256, 8, 4),
            (128, 128, 4, 3),
            (128, 128, 8, 3),
            (128, 128, 8, 2),
            (128, 64, 4, 4),
        )
    ],
    key=["D", "PRECISION", "_size"],
    cache_results=True,
)(_gradient_kernel)


def launch_gradient(
    image_bD: Tensor,
    text_mD: Tensor,
    a_b: Tensor,
    k_m: Tensor,
    scale: Tensor,
    shift: Tensor,
    first: int,
    out: Tensor,
    matmul_precision: str,
) -> None:
    """Fill `out`. The arguments are those of `launch.exp_gradient`, with embeddings that are rounded already."""
    b, m = out.shape
    arguments = (image_bD, text_mD, a_b, k_m, scale, shift, out, b, m, out.stride(0), first)
    options = product_options(image_bD, matmul_precision)
    if INTERPRETED:
        _gradient_kernel[(triton.cdiv(b, 32) * triton.cdiv(m, 64),)](
            *arguments, image_bD.shape[1], 0, **options, ROWS=32, COLUMNS=64
        )
        return
    with torch.cuda.device_of(image_bD):
        _tuned_gradient_kernel[
            lambda tile: (triton.cdiv(b, tile["ROWS"]) * triton.cdiv(m, tile["COLUMNS"]),)
        ](*arguments, image_bD.shape[1], size(b, m), **options)  # fmt: skip


def product_options(image_bD: Tensor, matmul_precision: str) -> dict[str, str | int | bool]:
    """Return the kernels' options for products: 128 bytes of an embedding per step, and the precision of fp32 ones."""
    depth = 128 // image_bD.element_size()
    precision = "tf32" if matmul_precision == "tf32" else "ieee"
    return {"PRECISION": precision, "DEPTH": depth, "EVEN": image_bD.shape[1] % depth == 0}


def size(rows: int, columns: int) -> int:
    """Return the size class for tuning: what is fast for ten rows says nothing about ten thousand."""
    return (rows * columns >= 2**22) + (rows * columns >= 2**27)
