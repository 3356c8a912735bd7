"""The learning rate against its definition, and which parameters decay."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raylens.config import ModelConfig, OptimConfig, TextTransformerConfig, VisionTransformerConfig
from raylens.models import DualEncoder
from raylens.train.optimizer import adamw, parameter_groups
from raylens.train.schedule import learning_rate


@given(st.integers(0, 500), st.integers(1, 2000), st.floats(1e-6, 1.0))
def test_bounds_and_shape(warmup: int, steps: int, peak: float) -> None:
    optim = OptimConfig(peak_lr=peak, warmup_steps=warmup)
    rates = [learning_rate(optim, step, steps) for step in range(steps)]
    assert all(0.0 < rate <= peak * (1 + 1e-12) for rate in rates)
    top = min(warmup, steps // 2)
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    if steps > top:
        assert rates[top] == pytest.approx(peak)


def test_matches_torch() -> None:
    """The same curve as torch's own schedulers give, chained."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.3)
    warm = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1 / 20, total_iters=19)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=80)
    ours = OptimConfig(peak_lr=0.3, warmup_steps=20)
    for step in range(100):
        expected = optimizer.param_groups[0]["lr"] if step < 20 else 0.15 * (1 + math.cos(math.pi * (step - 20) / 80))
        assert learning_rate(ours, step, 100) == pytest.approx(expected, rel=1e-6)
        optimizer.step()
        (warm if step < 20 else decay).step()


def test_decay_spares_gains_biases_and_scale() -> None:
    model = DualEncoder(
        ModelConfig(
            embed_dim=8,
            image=VisionTransformerConfig(size=8, patch=4, width=8, layers=1, heads=2),
            text=TextTransformerConfig(context=6, vocab=600, width=8, layers=1, heads=2),
        ),
        end_id=1,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, spared = (
        {names[id(parameter)] for parameter in group["params"]} for group in parameter_groups(model, 0.2)
    )
    assert decayed | spared == set(names.values())
    assert not decayed & spared
    assert "logit_scale" in spared
    assert all(name.endswith("bias") or ".ln_" in name or name == "logit_scale" for name in spared)
    assert "visual.class_embedding" in decayed
    assert [group["weight_decay"] for group in adamw(model, OptimConfig(weight_decay=0.2)).param_groups] == [0.2, 0.0]
