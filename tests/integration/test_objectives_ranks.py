"""The contrastive loss on 1, 2 and 4 gloo ranks against one process in fp64."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.helpers.ranks import RankPool

SIZES = (1, 2, 4)
B, F, D = 24, 12, 8

Case = dict[str, Any]
Results = dict[int, list[list[dict[str, Any]]]]


def dense_step(case: Case) -> tuple[Tensor, list[Tensor]]:
    """Loss and gradients of the global batch: the definition, in fp64."""
    leaves = [case[name].double().requires_grad_() for name in ("image_FD", "text_FD", "log_scale")]
    image_BD = functional.normalize(case["image_BF"].double() @ leaves[0], dim=1)
    text_BD = functional.normalize(case["text_BF"].double() @ leaves[1], dim=1)
    log_scale = leaves[2]
    if log_scale > math.log(case["max_scale"]):
        log_scale = log_scale - log_scale.detach() + math.log(case["max_scale"])
    logits_BB = log_scale.exp() * image_BD @ text_BD.T
    if case.get("sigmoid"):
        leaves.append(torch.tensor(-3.0, dtype=torch.float64).requires_grad_())
        signs_BB = 2 * torch.eye(len(logits_BB), dtype=torch.float64) - 1
        of_pairs = -functional.logsigmoid(signs_BB * (logits_BB + leaves[3])).sum() / len(logits_BB)
        return of_pairs.detach(), list(torch.autograd.grad(of_pairs, leaves))
    target_B = torch.arange(len(logits_BB))
    loss = sum(functional.cross_entropy(x, target_B) for x in (logits_BB, logits_BB.T)) / 2
    assert isinstance(loss, Tensor)
    return loss.detach(), list(torch.autograd.grad(loss, leaves))


def make_case(scale: float = 14.0, max_scale: float = 100.0, tile_rows: int = 4, noise: float = 1.0) -> Case:
    """Random towers over features that agree within a pair up to `noise`."""
    image_BF = torch.randn(B, F)
    return {
        "image_BF": image_BF,
        "text_BF": image_BF + noise * torch.randn(B, F),
        "image_FD": torch.randn(F, D),
        "text_FD": torch.randn(F, D),
        "log_scale": torch.tensor(math.log(scale)),
        "max_scale": max_scale,
        "tile_rows": tile_rows,
        "tolerance": 1e-5,
    }


def case_of_one_far_row() -> Case:
    """All texts near one direction, one image opposite to it: one row on one rank is lost in fp32."""
    case = make_case(scale=100.0, max_scale=200.0)
    case["tolerance"] = 1e-4  # the towers' rounding in fp32, seen through logits of -100
    case["image_FD"] = case["text_FD"] = torch.eye(F, D)
    towards = functional.pad(functional.normalize(torch.randn(D), dim=0), (0, F - D))
    case["text_BF"] = towards + 0.02 * torch.randn(B, F)
    case["image_BF"] = towards + 0.15 * torch.randn(B, F)
    case["image_BF"][B - 2] *= -1
    return case


def cases() -> dict[str, Case]:
    return {
        "start of training": make_case(),
        "chunk larger than the batch": make_case(tile_rows=100),
        "chunk that does not divide": make_case(tile_rows=5),
        "scale at 100": make_case(scale=100.0, max_scale=200.0),
        "one far row": case_of_one_far_row(),
        "above the cap": make_case(scale=30.0, max_scale=20.0, noise=4.0),
        "sigmoid": {**make_case(tile_rows=5), "sigmoid": True},
        "not finite": make_case(),
    }


@pytest.fixture(scope="module")
def named_cases() -> dict[str, Case]:
    made = cases()
    made["not finite"]["image_BF"][B - 1, 0] = math.nan
    return made


@pytest.fixture(scope="module")
def results(ranks: RankPool, named_cases: dict[str, Case]) -> Results:
    cases = list(named_cases.values())
    return {size: ranks.run("tests.integration._ranks_worker:on_rank", size, cases) for size in SIZES}


FINITE = [name for name in cases() if name != "not finite"]


def of_case(results: Results, named_cases: dict[str, Case], name: str, size: int) -> list[dict[str, Any]]:
    index = list(named_cases).index(name)
    return [rank[index] for rank in results[size]]


@pytest.mark.parametrize("name", FINITE)
@pytest.mark.parametrize("size", SIZES)
def test_mean_gradients_over_ranks_are_those_of_the_global_loss(
    results: Results, named_cases: dict[str, Case], name: str, size: int
) -> None:
    truth, true_gradients = dense_step(named_cases[name])
    tolerance = named_cases[name]["tolerance"]
    ranks = of_case(results, named_cases, name, size)
    assert all(torch.equal(rank["loss"], ranks[0]["loss"]) for rank in ranks)
    assert ranks[0]["loss"].item() == pytest.approx(truth.item(), rel=tolerance)
    for index, true_gradient in enumerate(true_gradients):
        mean = torch.stack([rank["grads"][index].double() for rank in ranks]).mean(0)
        assert (mean - true_gradient).norm() <= tolerance * true_gradient.norm()


@pytest.mark.parametrize("size", [2, 4])
def test_one_far_row_makes_every_rank_repeat_in_fp64(results: Results, named_cases: dict[str, Case], size: int) -> None:
    case = named_cases["one far row"]
    image_BD, text_BD = (functional.normalize(case[f"{side}_BF"][:, :D], dim=1) for side in ("image", "text"))
    logits_BB = 100.0 * image_BD @ text_BD.T
    lost = logits_BB.amax(1) < -60
    assert lost.nonzero().flatten().tolist() == [B - 2]  # in the last rank's rows alone
    assert logits_BB.amax(0).min() > 60  # and in no column
    for rank in of_case(results, named_cases, "one far row", size):
        assert rank["loss"] > 100 / B
        assert all(gradient.isfinite().all() for gradient in rank["grads"])


@pytest.mark.parametrize("size", [2, 4])
def test_above_the_cap_every_rank_follows_the_mean_gradient(results: Results, size: int) -> None:
    # Rank 0 pulls the other way in both: alone it would be stopped in the first and pass in the second.
    down = (-1.0 + 3.0 * (size - 1)) / size
    for rank in results[size]:
        assert rank[-1]["capped"] == pytest.approx([down, 0.0])


@pytest.mark.parametrize("size", SIZES)
def test_one_embedding_that_is_not_finite_shows_on_every_rank(
    results: Results, named_cases: dict[str, Case], size: int
) -> None:
    assert not any(rank["loss"].isfinite() for rank in of_case(results, named_cases, "not finite", size))


@pytest.mark.parametrize("size", [2, 4])
def test_unequal_local_batches_are_refused(results: Results, size: int) -> None:
    messages = [rank[-1]["refused"] for rank in results[size]]
    for by_rank in messages:
        assert str([3 + rank for rank in range(size)]) in by_rank["first"]
        assert by_rank["equal"] is None
    assert "local batch = 2 on rank 0" in messages[0]["changed"]
    assert all(by_rank["changed"] is None for by_rank in messages[1:])
