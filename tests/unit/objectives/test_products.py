"""What rounding the products does to the loss, and that nothing of it stays behind."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from raylens.errors import TrainingError
from raylens.objectives import TileSize, contrastive_dense, contrastive_loss, sigmoid_loss
from raylens.objectives.products import Products, onednn_is_exact


def leaves(b: int = 300, D: int = 64, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    image, noise = (functional.normalize(torch.randn(b, D, generator=generator), dim=1) for _ in "ab")
    text = functional.normalize(image + 2.0 * noise, dim=1)
    return [value.requires_grad_() for value in (image, text, torch.tensor(math.log(50.0)))]


def of(loss: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    return [loss.detach(), *torch.autograd.grad(loss, inputs)]


@pytest.mark.parametrize("tile_columns", [40, 4096])
def test_bf16_leaves_the_loss_and_moves_gradients_by_a_rounding(tile_columns: int) -> None:
    inputs = leaves()
    exact = of(contrastive_loss(*inputs), inputs)
    rounded = of(contrastive_loss(*inputs, matmul_precision="bf16", tile=TileSize(columns=tile_columns)), inputs)
    assert rounded[0].item() == pytest.approx(exact[0].item(), rel=1e-6)
    errors = [((a - b).norm() / b.norm()).item() for a, b in zip(rounded[1:], exact[1:], strict=True)]
    assert 1e-5 < max(errors) < 1e-2  # they are rounded, and no more than bf16 does


def test_fp64_is_never_rounded() -> None:
    inputs = [leaf.detach().double().requires_grad_() for leaf in leaves(40, 8)]
    exact, asked = (of(contrastive_loss(*inputs, matmul_precision=kind), inputs) for kind in ("fp32", "bf16"))
    assert all(torch.equal(a, b) for a, b in zip(exact, asked, strict=True))


def test_the_dense_form_is_the_tiled_one() -> None:
    inputs = leaves(150, 32)
    dense, tiled = of(contrastive_dense(*inputs), inputs), of(contrastive_loss(*inputs, tile=TileSize(64)), inputs)
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in zip(dense, tiled, strict=True))


def test_the_dense_form_falls_back_to_fp64_too() -> None:
    towards = functional.normalize(torch.randn(16), dim=0)
    spread = functional.normalize(torch.randn(12, 16), dim=1)
    image = functional.normalize(towards + 0.05 * spread, dim=1).requires_grad_()
    text = functional.normalize(-towards + 0.05 * spread.roll(1, 0), dim=1).requires_grad_()
    inputs = [image, text, torch.tensor(math.log(100.0), requires_grad=True)]
    double = [leaf.detach().double().requires_grad_() for leaf in inputs]
    found, wanted = of(contrastive_dense(*inputs), inputs), of(contrastive_loss(*double), double)
    assert all(torch.allclose(a.double(), b, rtol=1e-4, atol=1e-6) for a, b in zip(found, wanted, strict=True))


def test_torch_multiplies_as_before_afterwards() -> None:
    setting = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = setting.fp32_precision
    inputs = leaves(20, 8)
    of(contrastive_loss(*inputs), inputs)
    assert setting.fp32_precision == before
    with pytest.raises(TrainingError), Products().applied(torch.device("cpu")):
        raise TrainingError("within")
    assert setting.fp32_precision == before


def test_products_in_fp32_keep_all_digits() -> None:
    """On every processor, whichever library multiplies there."""
    a, b = torch.randn(700, 300), torch.randn(900, 300)
    out = torch.empty(700, 900)
    with Products("fp32").applied(torch.device("cpu")):
        Products("fp32").logits(a, b, out)
    wanted = a.double() @ b.double().T
    assert (out - wanted).norm() <= 2e-6 * wanted.norm()
    assert onednn_is_exact() in (True, False)


def test_an_unknown_precision_is_named() -> None:
    with pytest.raises(TrainingError, match="matmul_precision = 'fp8': it must be one of fp32, tf32, bf16"):
        sigmoid_loss(*leaves(4, 4), torch.zeros(()), matmul_precision="fp8")  # type: ignore[arg-type,call-arg]
