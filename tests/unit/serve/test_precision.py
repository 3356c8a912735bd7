"""What a tower computes with: chosen, measured, and taken back."""

import logging

import numpy as np
import pytest
import torch

from raylens.registry import Encoder
from raylens.serve.config import Precision
from raylens.serve.messages import Tower
from raylens.serve.replica import precision as precision_module
from raylens.serve.replica.precision import MIN_COSINE, apply_precision, golden_inputs
from tests.helpers.serving_app import random_bundle

TOWERS: tuple[Tower, ...] = ("text", "image")


@pytest.fixture
def encoder() -> Encoder:
    return Encoder(random_bundle())


def matrices(encoder: Encoder) -> set[torch.dtype]:
    """The types of what is multiplied with, in both towers."""
    towers = (encoder.model.visual, encoder.model.text)
    return {
        module.weight.dtype for tower in towers for module in tower.modules() if isinstance(module, torch.nn.Linear)
    }


@pytest.mark.parametrize(
    ("requested", "fast", "settled"),
    [
        ("fp32", True, "fp32"),
        ("fp32", False, "fp32"),
        ("bf16", True, "bf16"),
        ("bf16", False, "bf16"),
        ("auto", True, "bf16"),
        ("auto", False, "fp32"),
    ],
)
def test_a_tower_is_rounded_where_it_is_asked_for_or_worth_it(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch, requested: Precision, fast: bool, settled: str
) -> None:
    monkeypatch.setattr(precision_module, "_is_faster_in_bf16", lambda _: fast)
    conditions = apply_precision(encoder, golden_inputs(encoder, TOWERS), requested)
    assert {one.precision for one in conditions.values()} == {settled}
    assert matrices(encoder) == {torch.bfloat16 if settled == "bf16" else torch.float32}
    for condition in conditions.values():
        assert (condition.cosine == 1.0) == (settled == "fp32")
        assert MIN_COSINE <= condition.cosine < 1 + 1e-5


def test_the_cosine_is_the_least_of_all_known_inputs(encoder: Encoder) -> None:
    golden = golden_inputs(encoder, TOWERS)
    before = {tower: known.vectors_BD.copy() for tower, known in golden.items()}
    conditions = apply_precision(encoder, golden, "bf16")
    for tower, known in golden.items():
        now_BD = known.computed().astype(np.float64)
        cosines_B = (now_BD * before[tower].astype(np.float64)).sum(axis=1)
        assert conditions[tower].cosine == pytest.approx(cosines_B.min(), abs=1e-6)
        assert len(cosines_B) == 8
        assert not np.array_equal(now_BD, before[tower]), "it was rounded"


def test_a_tower_that_loses_its_direction_is_put_back_as_it_was(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(precision_module, "_is_faster_in_bf16", lambda _: True)
    golden = golden_inputs(encoder, TOWERS)
    rounded = apply_precision(encoder, golden, "bf16")
    for tower in TOWERS:
        encoder.restore_tower(tower)
    # Between the two towers: one may be rounded, the other not.
    least = (rounded["text"].cosine + rounded["image"].cosine) / 2
    monkeypatch.setattr(precision_module, "MIN_COSINE", least)
    with caplog.at_level(logging.WARNING, "ray.serve"):
        conditions = apply_precision(encoder, golden, "auto")
    worse: Tower = "text" if rounded["text"].cosine < rounded["image"].cosine else "image"
    assert conditions[worse].precision == "fp32"
    assert conditions[worse].cosine == 1.0
    assert [one.precision for tower, one in conditions.items() if tower != worse] == ["bf16"]
    assert f"the {worse} tower in bf16 has cosine" in caplog.text
    np.testing.assert_array_equal(golden[worse].computed(), golden[worse].vectors_BD)


def test_what_is_asked_for_is_done_however_far_it_is(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision_module, "MIN_COSINE", 2.0)
    conditions = apply_precision(encoder, golden_inputs(encoder, TOWERS), "bf16")
    assert {one.precision for one in conditions.values()} == {"bf16"}


def test_numbers_that_are_none_are_not_good_enough(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision_module, "_is_faster_in_bf16", lambda _: True)
    golden = golden_inputs(encoder, ("image",))
    golden["image"].vectors_BD[3] = np.nan
    assert apply_precision(encoder, golden, "auto")["image"].precision == "fp32"


@pytest.mark.parametrize(("supported", "gain", "fast"), [(True, 3.8, True), (True, 0.6, False), (False, 3.8, False)])
def test_instructions_that_bring_nothing_are_not_used(
    monkeypatch: pytest.MonkeyPatch, supported: bool, gain: float, fast: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: supported)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(precision_module, "_bf16_speedup", lambda: gain)
    assert precision_module._is_faster_in_bf16(torch.device("cpu")) is fast


def test_the_gain_is_measured_and_leaves_the_generator_alone() -> None:
    before = torch.get_rng_state()
    assert 0.05 < precision_module._bf16_speedup() < 50
    assert torch.equal(torch.get_rng_state(), before)
