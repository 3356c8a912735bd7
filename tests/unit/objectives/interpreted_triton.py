"""The Triton kernels, interpreted on the CPU against fp64 formulas: run by `test_objectives_triton.py`.

Triton reads once, when it is imported, whether it interprets, so this runs in a process with TRITON_INTERPRET=1, and is
not collected by its name.
"""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from raylens.objectives import contrastive, contrastive_loss, tiles
from raylens.objectives.triton import launch
from raylens.objectives.triton.launch import exp_gradient, exp_sums

UNIT = {"fp32": 0.0, "tf32": 2.0**-11, "bf16": 2.0**-8}
"""How far an operand is moved at most, relative to itself, before it is multiplied."""


def embeddings(b: int, B: int, D: int, seed: int) -> tuple[Tensor, Tensor]:
    """Unit vectors in fp32 that lean towards one another, so that cosines are not all near 0."""
    generator = torch.Generator().manual_seed(seed)
    rows_nD = torch.randn(b + B, D, generator=generator) + torch.randn(D, generator=generator)
    image_bD, text_BD = functional.normalize(rows_nD, dim=1).split([b, B])
    return image_bD.clone(), text_BD.clone()


def rounded(x: Tensor, products: str) -> Tensor:
    """To the 11 binary digits of TF32 or the 8 of bf16, in fp64."""
    mantissa, exponent = x.double().frexp()
    digits = {"fp32": 24, "tf32": 11, "bf16": 8}[products]
    return (mantissa * 2.0**digits).round().ldexp(exponent - digits)


def exact(image_bD: Tensor, text_BD: Tensor, scale: float, first: int) -> Tensor:
    """``E`` in fp64."""
    E_bB = (scale * image_bD.double() @ text_BD.double().T - max(0.0, scale - 70)).exp()
    b, B = E_bB.shape
    matching = torch.arange(b)[:, None] + first == torch.arange(B)
    return E_bB.masked_fill(matching, 0.0)


def moved(image_bD: Tensor, text_BD: Tensor, scale: float, unit: float) -> Tensor:
    """Most that ``E`` may be off, relative to itself.

    Operands moved by ``unit`` move a product by ``2 unit + unit^2``; fp32 sums add ``D 2^-24``; the exponent, at most
    145 in powers of two, is rounded three times, by ``2^-17`` at most.
    """
    magnitude_bB = image_bD.double().abs() @ text_BD.double().abs().T
    moved_bB = scale * magnitude_bB * (2 * unit + unit**2 + (image_bD.shape[1] + 2) * 2.0**-24)
    return torch.expm1(moved_bB + 3 * 2.0**-17)


def scalars(scale: float) -> tuple[Tensor, Tensor]:
    return torch.tensor(scale), torch.tensor(max(0.0, scale - 70))


def relative_error(measured: Tensor, wanted: Tensor) -> float:
    """Of the whole tensor, in the 2-norm."""
    return float((measured.double() - wanted).norm() / wanted.norm().clamp(min=1e-300))


# The interpreter rounds between the product and the sum of an exponent: 5e-6 at a scale of 100.
FP32 = 1.5e-5

cases = {
    "b": st.integers(1, 70),
    "B": st.integers(1, 140),
    "D": st.one_of(st.integers(1, 70), st.sampled_from([32, 64, 128])),
    "place": st.floats(-0.3, 1.3),
    "scale": st.floats(1.0, 100.0),
    "products": st.sampled_from(["fp32", "tf32", "bf16"]),
    "dtype": st.sampled_from([torch.float32, torch.bfloat16]),
    "seed": st.integers(0, 2**31),
}


@given(**cases)
@settings(max_examples=25, deadline=None)
def test_sums_are_those_of_the_formula(
    b: int, B: int, D: int, place: float, scale: float, products: Any, dtype: torch.dtype, seed: int
) -> None:
    first, scale = round(place * B), float(torch.tensor(scale))
    image_bD, text_BD = (x.to(dtype) for x in embeddings(b, B, D, seed))
    r_b, c_B = exp_sums(image_bD, text_BD, *scalars(scale), first, matmul_precision=products)
    assert r_b.dtype == c_B.dtype == torch.float64

    E_bB = exact(image_bD, text_BD, scale, first)
    unit = UNIT[products] if dtype == torch.float32 else 0.0
    most_bB = E_bB * moved(image_bD, text_BD, scale, unit)
    assert ((r_b - E_bB.sum(1)).abs() <= most_bB.sum(1) + 1e-37).all()
    assert ((c_B - E_bB.sum(0)).abs() <= most_bB.sum(0) + 1e-37).all()

    E_bB = exact(rounded(image_bD, products), rounded(text_BD, products), scale, first)
    assert relative_error(r_b, E_bB.sum(1)) < FP32
    assert relative_error(c_B, E_bB.sum(0)) < FP32


@given(**cases)
@settings(max_examples=25, deadline=None)
def test_gradient_is_that_of_the_formula(
    b: int, B: int, D: int, place: float, scale: float, products: Any, dtype: torch.dtype, seed: int
) -> None:
    first, scale = round(place * B), float(torch.tensor(scale))
    image_bD, text_mD = (x.to(dtype) for x in embeddings(b, B, D, seed))
    E_bm = exact(image_bD, text_mD, scale, first)
    a_b, k_m = 1 / (E_bm.sum(1) + 1), 1 / (E_bm.sum(0) + 1)
    out = torch.full((b, B + 3), torch.nan, dtype=torch.bfloat16 if products == "bf16" else torch.float32)
    G_bm = exp_gradient(image_bD, text_mD, a_b, k_m, *scalars(scale), first, out[:, :B], matmul_precision=products)
    assert G_bm.data_ptr() == out.data_ptr()
    assert out[:, B:].isnan().all()  # nothing is written beside it

    wanted_bm = E_bm * (a_b[:, None] + k_m)
    stored = 2.0**-7 if products == "bf16" else 0.0  # the interpreter cuts off what a GPU rounds
    unit = UNIT[products] if dtype == torch.float32 else 0.0
    most_bm = wanted_bm * ((1 + moved(image_bD, text_mD, scale, unit)) * (1 + stored) - 1 + 1e-6)
    assert ((G_bm.double() - wanted_bm).abs() <= most_bm + 1e-37).all()

    E_bm = exact(rounded(image_bD, products), rounded(text_mD, products), scale, first)
    wanted_bm = E_bm * (a_b[:, None] + k_m)
    assert relative_error(G_bm, wanted_bm) < FP32 + stored


def test_chunks_of_columns_and_blocks_of_rows_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """More columns than one program sums, and more rows than one launch."""
    monkeypatch.setattr(launch, "_PARTIAL_SUMS", 1)
    image_bD, text_BD = embeddings(290, 530, 9, seed=1)
    E_bB = exact(image_bD, text_BD, 30.0, 200)
    r_b, c_B = exp_sums(image_bD, text_BD, *scalars(30.0), 200, matmul_precision="fp32")
    assert torch.allclose(r_b, E_bB.sum(1), rtol=FP32)
    assert torch.allclose(c_B, E_bB.sum(0), rtol=FP32)

    a_b, k_B = 1 / E_bB.sum(1), 1 / E_bB.sum(0)
    G_bB = torch.empty(290, 530)
    for left in (0, 265):
        columns = slice(left, left + 265)
        operands = (image_bD, text_BD[columns], a_b, k_B[columns], *scalars(30.0), 200 - left)
        exp_gradient(*operands, G_bB[:, columns], matmul_precision="fp32")
    assert relative_error(G_bB, E_bB * (a_b[:, None] + k_B)) < FP32
    assert (G_bB[torch.arange(290), torch.arange(290) + 200] == 0).all()


def test_padding_adds_nothing_where_every_entry_is_tiny() -> None:
    """Opposite vectors: an entry is exp(-80); a place outside that counted as a cosine of 0 would add 1."""
    image_bD = functional.normalize(torch.ones(5, 3), dim=1)
    r_b, c_B = exp_sums(image_bD, -image_bD[:1], torch.tensor(80.0), torch.tensor(0.0), 7, matmul_precision="fp32")
    assert torch.allclose(r_b, torch.full_like(r_b, -80.0).exp(), rtol=FP32)
    assert torch.allclose(c_B, 5 * torch.full_like(c_B, -80.0).exp(), rtol=FP32)


@pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")  # numpy's, of the infinities
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("products", ["fp32", "bf16"])
def test_what_is_not_finite_shows(value: float, products: Any) -> None:
    """Also where it makes every entry exp(-inf) = 0."""
    image_bD, text_BD = embeddings(40, 70, 6, seed=0)
    text_BD[:, 2] = 0.5
    image_bD[33, 2] = value
    r_b, c_B = exp_sums(image_bD, text_BD, *scalars(50.0), 0, matmul_precision=products)
    assert r_b.isfinite().tolist() == [row != 33 for row in range(40)]
    assert not c_B[torch.arange(70) != 33].isfinite().any()

    image_bD[33, 2] = 0.0
    for scale, shift in ((value, 0.0), (50.0, value)):
        r_b, _ = exp_sums(image_bD, text_BD, torch.tensor(scale), torch.tensor(shift), 0, matmul_precision=products)
        assert not r_b.isfinite().any() or (shift == torch.inf and (r_b == 0).all())


def test_the_same_bits_every_time() -> None:
    operands = (*embeddings(65, 130, 20, seed=3), *scalars(90.0), 0)
    first, second = (exp_sums(*operands, matmul_precision="bf16") for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("products", ["bf16", "tf32"])
@pytest.mark.parametrize("scale", [14.3, 100.0])
def test_the_loss_through_the_kernels(products: Any, scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    # Small blocks of columns, so that matches lie before, in and behind them.
    monkeypatch.setattr(contrastive, "DENSE_ENTRIES", 0)
    monkeypatch.setattr(tiles, "FUSED_ENTRIES", 0)
    image_bD, text_bD = embeddings(150, 150, 24, seed=4)
    text_bD = functional.normalize(text_bD + image_bD, dim=1)
    inputs = (image_bD, text_bD, torch.tensor(scale).log())
    ours, truth = (
        [side.clone().to(dtype).requires_grad_() for side in inputs] for dtype in (torch.float, torch.double)
    )
    found, wanted = contrastive_loss(*ours, matmul_precision=products), contrastive_loss(*truth)
    found.backward()
    wanted.backward()
    assert found.item() == pytest.approx(wanted.item(), rel=scale * UNIT[products])
    for a, b in zip(ours, truth, strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert (a.grad - b.grad).norm() <= 2 * scale * UNIT[products] * b.grad.norm()
