import math
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from raylens.errors import TrainingError
from raylens.objectives import TileSize, capped_log_scale, contrastive_loss, initial_log_scale


def dense_loss(image_BD: Tensor, text_BD: Tensor, log_scale: Tensor) -> Tensor:
    """The definition: the mean of two cross-entropies over the B x B logits."""
    logits_BB = log_scale.exp() * image_BD @ text_BD.T
    target_B = torch.arange(len(image_BD))
    rows, columns = (functional.cross_entropy(x, target_B) for x in (logits_BB, logits_BB.T))
    return (rows + columns) / 2


def dense_loss_without_cancellation(image_BD: Tensor, text_BD: Tensor, log_scale: Tensor) -> Tensor:
    """The same for B > 1, written so that fp64 keeps its digits where the loss is tiny."""
    logits_BB = log_scale.exp() * image_BD @ text_BD.T
    others_BB = logits_BB.masked_fill(torch.eye(len(image_BD), dtype=torch.bool), -torch.inf)
    margins = [functional.softplus(others_BB.logsumexp(dim) - logits_BB.diagonal(), threshold=500) for dim in (0, 1)]
    return (margins[0].mean() + margins[1].mean()) / 2


def unit_pairs(b: int, D: int, likeness: float, seed: int) -> tuple[Tensor, Tensor]:
    """Unit vectors in fp64; `likeness` from -1 (opposite pairs) over 0 (unrelated) to 1 (equal)."""
    generator = torch.Generator().manual_seed(seed)
    image_BD, noise_BD = (
        functional.normalize(torch.randn(b, D, dtype=torch.float64, generator=generator), dim=1) for _ in "IT"
    )
    mixed_BD = likeness * image_BD + (1 - abs(likeness)) * noise_BD
    return image_BD, functional.normalize(mixed_BD, dim=1)


def leaves(*tensors: Tensor) -> list[Tensor]:
    return [tensor.detach().clone().requires_grad_() for tensor in tensors]


def relative_error(measured: Tensor, wanted: Tensor) -> float:
    """Of the whole tensor, in the 2-norm."""
    return float((measured.double() - wanted).norm() / wanted.norm().clamp(min=1e-300))


def against_fp64(image: Tensor, text: Tensor, scale: float, tile: TileSize) -> tuple[float, list[float], Tensor]:
    """Relative errors of the value and of the three gradients, and the true loss."""
    log_scale = torch.tensor(math.log(scale), dtype=torch.promote_types(image.dtype, torch.float32))
    measured, wanted = leaves(image, text, log_scale), leaves(image.double(), text.double(), log_scale.double())
    loss, truth = (
        contrastive_loss(*measured, tile=tile),
        dense_loss_without_cancellation(*wanted),
    )
    loss.backward()
    truth.backward()
    errors = [relative_error(grads(m), grads(w)) for m, w in zip(measured, wanted, strict=True)]
    return relative_error(loss.detach(), truth.detach()), errors, truth.detach()


def grads(leaf: Tensor) -> Tensor:
    assert leaf.grad is not None
    assert leaf.grad.dtype == leaf.dtype
    return leaf.grad


shapes = {
    "b": st.integers(2, 33),
    "D": st.integers(1, 24),
    "scale": st.floats(1.0, 100.0),
    "likeness": st.floats(-1.0, 1.0),
    "tile_rows": st.integers(1, 40),
    "tile_columns": st.integers(1, 40),
    "seed": st.integers(0, 2**31),
}


@pytest.mark.parametrize(("dtype", "relative"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@given(**shapes)
@settings(deadline=None, max_examples=150)
def test_value_and_gradients_equal_the_dense_formula(
    dtype: torch.dtype,
    relative: float,
    b: int,
    D: int,
    scale: float,
    likeness: float,
    tile_rows: int,
    tile_columns: int,
    seed: int,
) -> None:
    image, text = (side.to(dtype) for side in unit_pairs(b, D, likeness, seed))
    log_scale = torch.tensor(math.log(scale), dtype=dtype)
    measured, wanted = leaves(image, text, log_scale), leaves(image.double(), text.double(), log_scale.double())
    loss = contrastive_loss(*measured, tile=TileSize(tile_rows, tile_columns))
    truth = dense_loss_without_cancellation(*wanted)
    torch.testing.assert_close(truth, dense_loss(*wanted), rtol=1e-9, atol=1e-12)
    # A logit of `scale` is rounded, and gradients of up to 2 scale / sqrt(b) may cancel one another.
    logit_error = 2 * scale * torch.finfo(dtype).eps
    assert abs(loss.item() - truth.item()) <= relative * truth.item() + logit_error
    loss.backward()
    truth.backward()
    for leaf, true_leaf in zip(measured, wanted, strict=True):
        error = (grads(leaf).double() - grads(true_leaf)).norm()
        assert error <= relative * grads(true_leaf).norm() + logit_error * 2 * scale / math.sqrt(b)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_embeddings_are_multiplied_and_summed_in_fp32(dtype: torch.dtype) -> None:
    image, text = (side.to(dtype) for side in unit_pairs(96, 64, 0.3, seed=1))
    value, errors, _ = against_fp64(image, text, 60.0, tile=TileSize(32))
    # The same rounded embeddings go into both: the value is as good as in fp32, the gradients are rounded once.
    assert value < 1e-5
    assert max(errors[:2]) < torch.finfo(dtype).eps
    assert errors[2] < 1e-4


def test_small_loss_keeps_its_digits() -> None:
    for seed in range(3):
        image, text = (side.float() for side in unit_pairs(256, 128, 0.375, seed))
        value, errors, truth = against_fp64(image, text, 30.0, tile=TileSize(100))
        assert 1e-4 < truth < 1e-2
        assert value < 1e-6
        assert max(errors) < 1e-5


def test_vanishing_loss_is_neither_zero_nor_negative() -> None:
    image, text = (side.float() for side in unit_pairs(64, 64, 0.55, seed=3))
    value, errors, truth = against_fp64(image, text, 60.0, tile=TileSize(64))
    assert truth < 1e-7  # below the rounding error of `logsumexp - x_ii` in fp32
    assert value < 1e-5
    assert max(errors) < 1e-5


def test_identical_rows_give_ln_b_and_no_gradient_of_the_scale() -> None:
    image = functional.normalize(torch.randn(1, 16), dim=1).expand(24, 16)
    measured = leaves(image, image, torch.tensor(math.log(100.0)))
    loss = contrastive_loss(*measured, tile=TileSize(7))
    loss.backward()
    assert loss.item() == pytest.approx(math.log(24), rel=1e-5)
    assert abs(grads(measured[2]).item()) < 1e-3  # of terms that add up to 100 on either side


@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
def test_duplicate_rows_are_told_from_one_another_by_nothing(scale: float) -> None:
    image, text = (side.repeat(3, 1) for side in unit_pairs(20, 32, 0.4, seed=6))
    value, errors, truth = against_fp64(image.float(), text.float(), scale, tile=TileSize(16, 24))
    assert truth > math.log(3) - 1e-6
    assert value < 1e-6
    assert max(errors) < 1e-5


def test_a_single_pair_has_nothing_to_be_told_from() -> None:
    image, text = unit_pairs(1, 8, 0.0, seed=0)
    measured = leaves(image, text, torch.tensor([2.0]))
    loss = contrastive_loss(*measured)
    loss.backward()
    assert loss.item() == 0.0
    assert all(not grads(leaf).any() for leaf in measured)


@pytest.mark.parametrize("likeness", [-1.0, -0.999])
@pytest.mark.parametrize("scale", [100.0, 250.0])
def test_underflow_in_fp32_is_repeated_in_fp64(likeness: float, scale: float) -> None:
    # All images near one direction and all texts near its opposite: every logit is far below the shift.
    towards = functional.normalize(torch.randn(32, dtype=torch.float64), dim=0)
    spread, _ = unit_pairs(20, 32, 0.0, seed=5)
    image, text = (functional.normalize(sign * towards + 0.05 * spread, dim=1).float() for sign in (1, likeness))
    assert (scale * image @ text.T).max() < -0.8 * scale
    value, errors, _ = against_fp64(image, text, scale, tile=TileSize(8))
    assert value < 1e-6
    assert max(errors) < 1e-6


def test_a_scale_of_300_with_opposite_pairs_stays_finite() -> None:
    image, text = (side.float() for side in unit_pairs(16, 8, -1.0, seed=7))
    value, errors, truth = against_fp64(image, text, 300.0, tile=TileSize(16))
    assert truth > 300.0
    assert value < 1e-5
    assert max(errors) < 3e-5


def test_gradcheck() -> None:
    image, text = unit_pairs(7, 5, 0.2, seed=11)
    inputs = leaves(image, text, torch.tensor(1.5, dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda *tensors: contrastive_loss(*tensors, tile=TileSize(3)), inputs)


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_embeddings_that_are_not_finite_show_in_the_loss(poison: float, side: int) -> None:
    for b in (1, 2, 9):
        embeddings = [part.float() for part in unit_pairs(b, 6, 0.5, seed=b)]
        embeddings[side][b // 2, 3] = poison
        assert not torch.isfinite(contrastive_loss(embeddings[0], embeddings[1], torch.tensor(3.0)))


def test_a_scale_that_is_not_finite_shows_in_the_loss() -> None:
    image, text = unit_pairs(4, 6, 0.5, seed=0)
    for log_scale in (math.nan, math.inf):
        assert not torch.isfinite(contrastive_loss(image.float(), text.float(), torch.tensor(log_scale)))


def test_two_runs_are_equal_to_the_last_bit() -> None:
    image, text = (side.float() for side in unit_pairs(130, 48, 0.2, seed=2))
    outcomes = []
    for _ in range(2):
        measured = leaves(image, text, torch.tensor(3.0))
        loss = contrastive_loss(*measured, tile=TileSize(64))
        loss.backward()
        outcomes.append([loss.detach(), *map(grads, measured)])
    assert all(torch.equal(first, second) for first, second in zip(*outcomes, strict=True))


def test_a_frozen_tower_gets_no_gradient_and_the_rest_is_unchanged() -> None:
    image, text = unit_pairs(12, 8, 0.3, seed=4)
    everything = leaves(image, text, torch.tensor(3.0))
    contrastive_loss(*everything).backward()
    for frozen in (0, 1):
        some = leaves(image, text, torch.tensor(3.0))
        some[frozen].requires_grad_(False)
        contrastive_loss(*some).backward()
        assert some[frozen].grad is None
        for index in {0, 1, 2} - {frozen}:
            assert torch.equal(grads(some[index]), grads(everything[index]))


def test_autocast_does_not_reach_the_logits() -> None:
    image, text = (side.float() for side in unit_pairs(32, 16, 0.2, seed=6))
    outcomes = []
    for enabled in (False, True):
        measured = leaves(image, text, torch.tensor(math.log(100.0)))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            loss = contrastive_loss(*measured)
            loss.backward()
        outcomes.append([loss.detach(), *map(grads, measured)])
    assert all(torch.equal(plain, cast) for plain, cast in zip(*outcomes, strict=True))


class LargestTensor(TorchDispatchMode):
    """The largest number of elements that any operation under it returns."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.elements = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


@pytest.mark.parametrize("underflow", [False, True])
def test_no_tensor_is_larger_than_a_tile(underflow: bool) -> None:
    b, D, tile = 256, 4, TileSize(16, 100)
    image, text = (side.float() for side in unit_pairs(b, D, 0.3, seed=8))
    if underflow:
        image = functional.normalize(torch.ones(b, D) + 0.05 * torch.rand(b, D), dim=1)
        text = -image.roll(1, 0)
    contrastive_loss(image, text, torch.tensor(4.6))  # tries the machine's products, once
    with LargestTensor() as tiled:
        contrastive_loss(*leaves(image, text, torch.tensor(4.6)), tile=tile).backward()
    with LargestTensor() as dense:
        dense_loss(*leaves(image, text, torch.tensor(4.6))).backward()
    assert dense.elements == b * b
    assert tiled.elements == 16 * 100


@pytest.mark.parametrize(
    ("image", "text", "log_scale", "named"),
    [
        (torch.ones(3, 4), torch.ones(2, 4), torch.zeros(()), r"\(3, 4\).*\(2, 4\)"),
        (torch.ones(3), torch.ones(3), torch.zeros(()), r"shape \(3,\)"),
        (torch.ones(0, 4), torch.ones(0, 4), torch.zeros(()), r"not empty"),
        (torch.ones(3, 4), torch.ones(3, 4).double(), torch.zeros(()), r"float32.*float64"),
        (torch.ones(3, 4).int(), torch.ones(3, 4).int(), torch.zeros(()), r"int32"),
        (torch.ones(3, 4), torch.ones(3, 4), torch.zeros(2), r"log_scale has shape \(2,\)"),
    ],
)
def test_arguments_that_do_not_fit_are_named(image: Tensor, text: Tensor, log_scale: Tensor, named: str) -> None:
    with pytest.raises(TrainingError, match=named):
        contrastive_loss(image, text, log_scale)


@pytest.mark.parametrize(("rows", "columns"), [(0, 1), (1, 0), (-3, 4)])
def test_a_tile_that_holds_nothing_is_named(rows: int, columns: int) -> None:
    with pytest.raises(TrainingError, match=f"tile = {rows} x {columns}"):
        TileSize(rows, columns)


def test_the_scale_starts_at_the_inverse_temperature() -> None:
    assert math.exp(initial_log_scale()) == pytest.approx(1 / 0.07)
    assert math.exp(initial_log_scale(0.5)) == pytest.approx(2.0)
    for temperature in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(TrainingError, match="temperature"):
            initial_log_scale(temperature)


@pytest.mark.parametrize(
    ("scale", "gradient", "passed"),
    [
        (50.0, -2.0, -2.0),
        (50.0, 2.0, 2.0),
        (100.0, -2.0, 0.0),
        (150.0, -2.0, 0.0),
        (150.0, 2.0, 2.0),
    ],
)
def test_the_cap_stops_only_a_push_further_up(scale: float, gradient: float, passed: float) -> None:
    log_scale = torch.tensor(math.log(scale), dtype=torch.float64, requires_grad=True)
    capped = capped_log_scale(log_scale, 100.0)
    (gradient * capped).backward()
    assert capped.exp().item() == pytest.approx(min(scale, 100.0))
    assert grads(log_scale).item() == passed


def test_the_cap_does_not_hide_a_gradient_that_is_not_finite() -> None:
    log_scale = torch.tensor(9.0, requires_grad=True)
    (math.nan * capped_log_scale(log_scale, 100.0)).backward()
    assert grads(log_scale).isnan()


def test_a_parameter_above_the_cap_comes_back_and_is_never_held_there() -> None:
    # Unrelated pairs: the loss wants a small scale, so descent must leave the cap behind.
    image, text = (side.float() for side in unit_pairs(32, 16, 0.0, seed=9))
    log_scale = torch.nn.Parameter(torch.tensor(math.log(400.0)))
    optimizer = torch.optim.SGD([log_scale], lr=0.02)
    for _ in range(20):
        optimizer.zero_grad()
        contrastive_loss(image, text, capped_log_scale(log_scale, 100.0)).backward()
        optimizer.step()
    assert log_scale.exp().item() < 20.0


def test_a_cap_that_is_no_scale_is_named() -> None:
    for cap in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(TrainingError, match="max_scale"):
            capped_log_scale(torch.zeros(()), cap)
