"""The learning rate against its definitions, and which parameters have which."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raylens.config import (
    GroupConfig,
    GroupsConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimConfig,
    RunConfig,
    ScheduleConfig,
    TextTransformerConfig,
    VisionTransformerConfig,
    validated,
)
from raylens.errors import MissingExtraError
from raylens.models import DualEncoder
from raylens.train.engine.forward import PairForward
from raylens.train.engine.optimizer import build_optimizer, parameter_groups, set_learning_rates
from raylens.train.loop.schedule import TrainingProgress, learning_rate, log_scale_at, share_of_peak

KINDS = ("cosine", "linear", "constant", "inverse_sqrt")
SMALL = ModelConfig(
    embed_dim=8,
    image=VisionTransformerConfig(size=8, patch=4, width=8, layers=1, heads=2),
    text=TextTransformerConfig(context=6, vocab=600, width=8, layers=1, heads=2),
)


def small() -> DualEncoder:
    return DualEncoder(SMALL, end_id=1, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@given(
    st.sampled_from(KINDS), st.integers(0, 300), st.integers(1, 300), st.integers(1, 600), st.floats(0.0, 1.0)
)  # fmt: skip
def test_up_then_down_between_end_and_peak(kind: str, warmup: int, cooldown: int, steps: int, end: float) -> None:
    schedule = ScheduleConfig(kind=kind, warmup_steps=warmup, cooldown_steps=cooldown, end=end)
    shares = [share_of_peak(schedule, TrainingProgress(step, steps)) for step in range(steps)]
    assert all(0.0 <= share <= 1.0 for share in shares)
    top = min(warmup, steps // 2)
    assert shares[:top] == sorted(shares[:top])
    assert shares[top:] == sorted(shares[top:], reverse=True)
    assert shares[top] == pytest.approx(1.0) or cooldown >= steps - top
    # One step more would be there, unless the curve came below it before.
    assert share_of_peak(schedule, TrainingProgress(steps, steps)) <= end + 1e-9 or kind == "inverse_sqrt"


def test_cosine_matches_torch() -> None:
    """The same curve as torch's own schedulers give, chained."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.3)
    warm = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1 / 20, total_iters=19)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=80, eta_min=0.03)
    ours = ScheduleConfig(warmup_steps=20, end=0.1)
    for step in range(100):
        closed = 0.03 + 0.135 * (1 + math.cos(math.pi * (step - 20) / 80))
        expected = optimizer.param_groups[0]["lr"] if step < 20 else closed
        assert learning_rate(0.3, ours, TrainingProgress(step, 100)) == pytest.approx(expected, rel=1e-6)
        optimizer.step()
        (warm if step < 20 else decay).step()


def test_the_other_curves() -> None:
    def at(step: int, **values: object) -> float:
        return share_of_peak(ScheduleConfig.model_validate({"warmup_steps": 10, **values}), TrainingProgress(step, 110))

    assert [at(step, kind="linear") for step in (9, 10, 60, 109)] == pytest.approx([1.0, 1.0, 0.5, 0.01])
    assert at(60, kind="linear", end=0.5) == pytest.approx(0.75)
    assert [at(step, kind="inverse_sqrt") for step in (10, 40, 90)] == pytest.approx([1.0, 0.5, 1 / 3])
    stable = {"kind": "constant", "cooldown_steps": 20, "end": 0.1}
    assert [at(step, **stable) for step in (10, 90, 100, 109)] == pytest.approx([1.0, 1.0, 0.55, 0.145])
    assert at(100, kind="inverse_sqrt", cooldown_steps=20) == pytest.approx((1 / 3) / 2)
    with pytest.raises(ValueError, match=r"end = 0\.5 with kind = 'constant' needs cooldown_steps"):
        ScheduleConfig(kind="constant", end=0.5)


def test_a_scheduled_temperature_goes_from_start_to_end() -> None:
    objective = ObjectiveConfig(temperature=0.1, end_temperature=0.01, learn_scale=False)
    scales = [math.exp(log_scale_at(objective, TrainingProgress(step, 101)) or 0.0) for step in range(101)]
    assert [scales[0], scales[50], scales[100]] == pytest.approx([10.0, math.sqrt(1000), 100.0])
    assert scales == sorted(scales)
    assert log_scale_at(ObjectiveConfig(), TrainingProgress(3, 10)) is None
    with pytest.raises(ValueError, match=r"scheduled or learned, not both"):
        ObjectiveConfig(end_temperature=0.01)
    with pytest.raises(ValueError, match=r"a logit scale of 200, above objective\.max_logit_scale = 100"):
        ObjectiveConfig(end_temperature=0.005, learn_scale=False)


def test_decay_spares_gains_biases_and_scale() -> None:
    model = small()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, OptimConfig(weight_decay=0.2))
    decayed, spared = ({names[id(parameter)] for parameter in group["params"]} for group in groups)
    assert decayed | spared == set(names.values())
    assert not decayed & spared
    assert all(name.endswith("bias") or ".ln_" in name or name == "logit_scale" for name in spared)
    assert "visual.class_embedding" in decayed
    assert [group["weight_decay"] for group in groups] == [0.2, 0.0]


@pytest.mark.parametrize("inside", [True, False])
def test_parts_have_rates_of_their_own(inside: bool) -> None:
    """Also where the model stands inside the module that a training step is."""
    own = ScheduleConfig(kind="constant", warmup_steps=0)
    parts = GroupsConfig(
        image=GroupConfig(lr_factor=0.1, weight_decay=0.05), logit_scale=GroupConfig(lr_factor=2.0, schedule=own)
    )
    optim = OptimConfig(peak_lr=1.0, schedule=ScheduleConfig(kind="linear", warmup_steps=0), groups=parts)
    model = small()
    tree = {"name": "x", "data": {"train": "x"}, "model": SMALL.model_dump()}
    module = PairForward(model, validated(RunConfig, tree)) if inside else model
    optimizer = build_optimizer(module, optim)
    set_learning_rates(optimizer, optim, TrainingProgress(5, 10))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert found["visual.conv1.weight"] == pytest.approx((0.05, 0.05))
    assert found["visual.ln_pre.weight"] == pytest.approx((0.05, 0.0))
    assert found["text.token_embedding.weight"] == pytest.approx((0.5, 0.2))
    assert found["logit_scale"] == pytest.approx((2.0, 0.0))


def test_lion_is_the_library_s() -> None:
    optimizer = build_optimizer(small(), OptimConfig(kind="lion"))
    from pytorch_optimizer import Lion  # which imports transformers: a second that every worker of the tests would pay

    assert type(optimizer) is Lion
    assert optimizer.param_groups[0]["weight_decouple"]


def test_lion_without_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pytorch_optimizer", None)
    with pytest.raises(MissingExtraError, match=r"optim\.kind = 'lion'.*raylens\[lion\]"):
        build_optimizer(small(), OptimConfig(kind="lion"))
