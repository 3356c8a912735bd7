"""The matrix products of the losses: in fp32 by default, in TF32 or bf16 on request; sums are always in fp32."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from raylens.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

__all__ = ["Precision", "Products"]

Precision = Literal["fp32", "tf32", "bf16"]
EXACT = 2e-6
"""The largest relative error of a product in full fp32; rounding to bf16 makes about 1e-3."""


@dataclass(frozen=True)
class Products:
    """Products of matrices whose operands are rounded to ``precision`` first.

    With bf16 a CPU rounds only the operands of the gradient: its bf16 products have bf16 results, so that logits
    would be off by up to 0.2 at a scale of 100. A GPU rounds the operands of logits too, and keeps results in fp32.
    """

    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            raise TrainingError(
                f"matmul_precision = {self.precision!r}: it must be one of {', '.join(get_args(Precision))}"
            )

    def rounds(self, x: Tensor) -> bool:
        """Tell whether ``x`` is multiplied in bf16."""
        return self.precision == "bf16" and x.dtype != torch.float64

    def logits(self, image_nD: Tensor, text_mD: Tensor, out_nm: Tensor) -> None:
        """Compute ``out = image text'``, for operands in the dtype of ``out``."""
        if out_nm.is_cuda and self.rounds(out_nm):
            torch.mm(image_nD.bfloat16(), text_mD.bfloat16().T, out_dtype=out_nm.dtype, out=out_nm)
        else:
            torch.mm(image_nD, text_mD.T, out=out_nm)

    def operand(self, x: Tensor) -> Tensor:
        """Return ``x`` in the dtype in which `add_product` multiplies it."""
        return x.bfloat16() if self.rounds(x) else x

    def add_product(self, a: Tensor, b: Tensor, out: Tensor) -> None:
        """Compute ``out += a b``, for matrices that `operand` returned."""
        if a.dtype == out.dtype:
            out.addmm_(a, b)
        elif out.is_cuda:
            out += torch.mm(a, b, out_dtype=out.dtype)
        else:
            out += a @ b

    @contextmanager
    def applied(self, device: torch.device) -> Iterator[None]:
        """Make torch multiply fp32 matrices at this precision, within this context."""
        backend, wanted = self._setting(device)
        before = backend.fp32_precision
        backend.fp32_precision = wanted
        try:
            yield
        finally:
            backend.fp32_precision = before

    def _setting(self, device: torch.device) -> tuple[Any, str]:
        if device.type == "cuda":
            return torch.backends.cuda.matmul, "ieee" if self.precision == "fp32" else "tf32"
        return _mkldnn(), "bf16" if onednn_is_exact() else "ieee"


@cache
def onednn_is_exact() -> bool:
    """Tell whether oneDNN, though permitted to round to bf16, computes exact fp32 products on this processor.

    It does on processors without AMX, and on AMD's it is twice as fast as MKL, torch's own choice: 440 against 195
    GFLOP/s on 2 cores of Zen 5. Only a trial product shows it; the trial has a generator of its own.
    """
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(256, 512, generator=generator) for _ in "ab")
    setting = _mkldnn()
    before = setting.fp32_precision
    setting.fp32_precision = "bf16"
    try:
        product = a @ b.T
    finally:
        setting.fp32_precision = before
    wanted = a.double() @ b.double().T
    return bool((product - wanted).norm() <= EXACT * wanted.norm())


def _mkldnn() -> Any:
    return torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
