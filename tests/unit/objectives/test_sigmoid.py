"""The sigmoid loss against its formula written out in fp64, pair by pair."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from raylens.errors import TrainingError
from raylens.objectives import TileSize, sigmoid_loss


def dense(image: Tensor, text: Tensor, log_scale: Tensor, bias: Tensor) -> Tensor:
    """Algorithm 1 of Zhai et al. 2023, with every logit in memory."""
    logits = log_scale.exp() * image @ text.T + bias
    signs = 2 * torch.eye(len(image), dtype=logits.dtype) - 1
    return -functional.logsigmoid(signs * logits).sum() / len(image)


def case(b: int, D: int, seed: int, scale: float, bias: float, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sides = [functional.normalize(torch.randn(b, D, generator=generator, dtype=torch.float64), dim=1) for _ in "ab"]
    values = [*sides, torch.tensor([math.log(scale)]), torch.tensor([bias])]
    return [value.to(dtype).requires_grad_() for value in values]


@pytest.mark.parametrize(("dtype", "relative"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
@settings(deadline=None, max_examples=100)
@given(
    st.integers(1, 33),
    st.integers(1, 24),
    st.floats(1.0, 100.0),
    st.floats(-20.0, 5.0),
    st.integers(1, 40),
    st.integers(0, 9999),
)
def test_value_and_gradients_are_those_of_the_formula(
    dtype: torch.dtype, relative: float, b: int, D: int, scale: float, bias: float, tile_rows: int, seed: int
) -> None:
    ours = case(b, D, seed, scale, bias, dtype)
    truth = [leaf.detach().double().requires_grad_() for leaf in ours]
    loss, expected = sigmoid_loss(*ours, tile=TileSize(tile_rows)), dense(*truth)
    loss.backward()
    expected.backward()
    logit_error = 4 * (scale + abs(bias)) * torch.finfo(dtype).eps
    assert abs(loss.item() - expected.item()) <= relative * expected.item() + b * logit_error
    for found, wanted in zip(ours, truth, strict=True):
        assert found.grad is not None
        assert wanted.grad is not None
        assert (found.grad - wanted.grad).norm() <= relative * wanted.grad.norm() + b * scale * logit_error


def test_gradcheck() -> None:
    leaves = case(5, 3, 1, 7.0, -2.0, torch.float64)
    assert torch.autograd.gradcheck(lambda *of: sigmoid_loss(*of, tile=TileSize(2)), leaves)


def test_a_locked_side_gets_no_gradient() -> None:
    image, text, log_scale, bias = case(6, 4, 0, 10.0, -10.0, torch.float32)
    sigmoid_loss(image.detach(), text, log_scale, bias).backward()
    assert image.grad is None
    assert text.grad is not None


def test_a_bias_of_many_elements_is_named() -> None:
    image, text, log_scale, _ = case(6, 4, 0, 10.0, -10.0, torch.float32)
    with pytest.raises(TrainingError, match=r"bias has shape \(2,\)"):
        sigmoid_loss(image, text, log_scale, torch.zeros(2))
