"""The triplet loss against its formula written out in fp64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from raylens.errors import TrainingError
from raylens.objectives import TileSize, triplet_loss


def by_definition(image: Tensor, text: Tensor, margin: float) -> Tensor:
    """Kiros et al. 2014, equation 2, pair by pair."""
    total = 0.0 * (image.sum() + text.sum())  # a graph for a single pair too
    for i in range(len(image)):
        for j in range(len(image)):
            if i != j:
                match = image[i] @ text[i]
                total = total + (margin - match + image[i] @ text[j]).clamp(min=0)
                total = total + (margin - match + image[j] @ text[i]).clamp(min=0)
    return total / len(image)


def sides(b: int, D: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [functional.normalize(torch.randn(b, D, generator=generator, dtype=torch.float64), dim=1) for _ in "ab"]


# In one dimension cosines are 1 or -1, and a hinge of 2 stands in its corner, where any slope would do.
@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 13), st.integers(2, 9), st.floats(0.01, 1.99), st.integers(1, 15), st.integers(1, 15), st.integers(0)
)
def test_value_and_gradients_are_those_of_the_formula(
    b: int, D: int, margin: float, rows: int, columns: int, seed: int
) -> None:
    ours = [side.requires_grad_() for side in sides(b, D, seed % 2**31)]
    truth = [side.detach().clone().requires_grad_() for side in ours]
    loss = triplet_loss(ours[0], ours[1], margin=margin, tile=TileSize(rows, columns))
    expected = by_definition(truth[0], truth[1], margin)
    loss.backward()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12, abs=1e-12)
    for found, wanted in zip(ours, truth, strict=True):
        assert found.grad is not None
        assert wanted.grad is not None
        assert torch.allclose(found.grad, wanted.grad, rtol=1e-12, atol=1e-12)


def test_pairs_that_are_apart_by_the_margin_cost_nothing() -> None:
    image = torch.eye(5, requires_grad=True)
    loss = triplet_loss(image, torch.eye(5), margin=0.9)
    loss.backward()
    assert loss.item() == 0.0
    assert image.grad is not None
    assert not image.grad.any()


@pytest.mark.parametrize("b", [1, 4])
def test_an_embedding_that_is_not_finite_shows(b: int) -> None:
    image, text = (side.float() for side in sides(b, 6, 0))
    text[0, 0] = math.nan
    assert not triplet_loss(image, text).isfinite()


@pytest.mark.parametrize("margin", [0.0, -1.0, 2.1, math.nan])
def test_a_margin_that_is_none_is_named(margin: float) -> None:
    image, text = sides(3, 4, 0)
    with pytest.raises(TrainingError, match="margin = "):
        triplet_loss(image, text, margin=margin)
