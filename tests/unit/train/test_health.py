"""Steps that change nothing are skipped, counted, and end the run when they go on; a stuck loss is told of."""

import math
from typing import Any

import pytest
import torch

from raylens.config import RunConfig, validated
from raylens.errors import TrainingError
from raylens.train.engine.skip_nonfinite import skip_nonfinite
from raylens.train.loop.health import STUCK_STEPS, StepMonitor
from raylens.train.loop.stats import StepStats

FINE = StepStats(loss=3.0, logit_scale=14.0, grad_norm=1.0)
BROKEN = StepStats(math.nan, 99.0, math.inf, skipped=True, broken=(5, 77), weight_norm=12.5)


def config(**optim: int) -> RunConfig:
    return validated(RunConfig, {"name": "w", "global_batch": 64, "data": {"train": "x"}, "optim": optim})


def test_skipped_steps_are_counted_and_told_once_in_a_row() -> None:
    monitor = StepMonitor(config(max_skipped=3))
    told = [monitor.observe(stats, step, (1, 2)) for step, stats in enumerate([FINE, BROKEN, BROKEN, FINE, BROKEN], 1)]
    assert [text is not None for text in told] == [False, True, False, False, True]
    assert monitor.skipped == 3
    assert told[1] is not None
    for words in ("step 2", "loss nan", "scale 99", "norm inf", "weight norm 12.5", "samples 5, 77", "--step 2"):
        assert words in told[1]


def test_too_many_in_a_row_stop_the_run_with_a_diagnosis() -> None:
    monitor = StepMonitor(config(max_skipped=2))
    monitor.observe(BROKEN, 1, ())
    monitor.observe(BROKEN, 2, ())
    with pytest.raises(TrainingError, match=r"3 steps in a row .* step 3: loss nan.*samples 5, 77.*optim.peak_lr"):
        monitor.observe(BROKEN, 3, ())
    with pytest.raises(TrainingError, match="1 steps in a row"):
        StepMonitor(config(max_skipped=0)).observe(BROKEN, 1, ())


def test_it_says_where_it_broke() -> None:
    backward = StepStats(2.5, 14.0, math.inf, skipped=True)
    told = StepMonitor(config()).observe(backward, 9, tuple(range(20)))
    assert told is not None
    assert "the loss is finite" in told
    assert "samples 0, 1, 2, 3, 4, 5, 6, 7 and others" in told


def test_a_loss_that_stays_at_ln_b_is_told_of_once() -> None:
    monitor = StepMonitor(config())
    stuck = StepStats(math.log(64) * 1.001, 14.0, 1e-6)
    told = [monitor.observe(stuck, step, ()) for step in range(1, 2 * STUCK_STEPS)]
    assert [step for step, text in enumerate(told, 1) if text] == [STUCK_STEPS]
    assert "ln(global_batch)" in str(told[STUCK_STEPS - 1])


def test_a_loss_that_moves_is_not() -> None:
    monitor = StepMonitor(config())
    for step in range(1, 3 * STUCK_STEPS):
        loss = math.log(64) if step % 100 else 3.0  # it leaves now and then
        assert monitor.observe(StepStats(loss, 14.0, 1.0), step, ()) is None


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_adamw_leaves_weights_and_moments_alone_where_a_gradient_is_not_finite(poison: float) -> None:
    weights = [torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(2))]
    optimizer: Any = skip_nonfinite(torch.optim.AdamW(weights, lr=0.1), 0.0)
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    weights[0].grad = torch.tensor([1.0, poison, 1.0])
    optimizer.step()
    assert bool(optimizer.overflow)
    assert not optimizer.state
    assert all(torch.equal(weight, torch.ones_like(weight)) for weight in weights)
    weights[0].grad = torch.ones(3)
    optimizer.step()
    assert bool(optimizer.overflow) is False
    assert optimizer._global_grad_norm == pytest.approx(math.sqrt(5))
    assert all((weight < 1).all() for weight in weights)


def test_adamw_clips_as_torch_does() -> None:
    ours, theirs = torch.nn.Parameter(torch.ones(4)), torch.nn.Parameter(torch.ones(4))
    guarded = skip_nonfinite(torch.optim.AdamW([ours], lr=0.1, eps=1.0), 0.5)
    plain = torch.optim.AdamW([theirs], lr=0.1, eps=1.0)
    for step in range(3):
        ours.grad, theirs.grad = torch.full((4,), 1.0 + step), torch.full((4,), 1.0 + step)
        guarded.step()
        torch.nn.utils.clip_grad_norm_([theirs], 0.5)
        plain.step()
    assert torch.equal(ours, theirs)
