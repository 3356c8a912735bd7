"""Search spaces: what they draw, what they refuse, and what a value does to a configuration."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylens.config import RunConfig, validated
from raylens.errors import ConfigError
from raylens.tune import Domain, SweepConfig
from raylens.tune.presets import PRESETS
from raylens.tune.search.candidates import candidates, with_repeats
from raylens.tune.space import Space, with_values
from raylens.tune.transfer import TransferConfig, lr_factor
from raylens.workloads.recipes import RECIPES, digits
from raylens.workloads.recipes.sweeps import SWEEPS

RUN = SWEEPS["digits"]().run


def sweep(space: dict[str, Any], **others: Any) -> SweepConfig:
    return validated(SweepConfig, {"name": "s", "run": RUN.model_dump(mode="json"), "space": space, **others})


@given(low=st.floats(1e-6, 1e3), ratio=st.floats(1.001, 1e6), share=st.floats(0, 1))
def test_a_range_is_covered_from_end_to_end(low: float, ratio: float, share: float) -> None:
    high = low * ratio
    for domain in (Domain(uniform=(low, high)), Domain(log_uniform=(low, high))):
        assert domain.at(0.0) == pytest.approx(low)
        assert domain.at(1.0) == pytest.approx(high)
        assert low <= domain.at(share) <= high
        assert domain.fraction_of(domain.at(share)) == pytest.approx(share, abs=1e-6)
        assert len(domain.grid) == domain.grid_points
    assert Domain(log_uniform=(low, high)).at(0.5) == pytest.approx(math.sqrt(low * high))


@given(low=st.integers(1, 50), more=st.integers(1, 50))
def test_whole_numbers_are_all_reached_and_as_likely_as_their_part_of_the_range(low: int, more: int) -> None:
    domain = Domain(integer=(low, low + more))
    drawn = [domain.at((place + 0.5) / (100 * (more + 1))) for place in range(100 * (more + 1))]
    assert {value: drawn.count(value) for value in range(low, low + more + 1)} == dict.fromkeys(set(drawn), 100)
    logarithmic = Domain(log_integer=(low, low + more))
    assert {logarithmic.at(place / 2000) for place in range(2001)} >= {low, low + more}
    assert all(isinstance(value, int) for value in drawn)


def test_draws_are_the_same_for_the_same_seed_and_do_not_hang_on_later_keys() -> None:
    first = {"optim.peak_lr": Domain(log_uniform=(1e-4, 1e-2)), "optim.beta1": Domain(uniform=(0.8, 0.95))}
    space, longer = Space(first), Space({**first, "seed": Domain(choice=[1, 2])})
    assert space.draw((0, 3)) == space.draw((0, 3)) != space.draw((0, 4))
    drawn = longer.draw((0, 3))
    assert {key: drawn[key] for key in first} == space.draw((0, 3))


def test_a_condition_decides_whether_a_key_is_there() -> None:
    space = Space(
        {
            "optim.schedule.kind": Domain(choice=["cosine", "constant"]),
            "optim.schedule.cooldown_steps": Domain(integer=(1, 9), when={"optim.schedule.kind": ["constant"]}),
        }
    )
    for number in range(50):
        values = space.draw((1, number))
        assert ("optim.schedule.cooldown_steps" in values) == (values["optim.schedule.kind"] == "constant")
    grid = space.grid()
    assert grid[0] == {"optim.schedule.kind": "cosine"}
    assert [one["optim.schedule.cooldown_steps"] for one in grid[1:]] == [1, 3, 5, 7, 9]


def test_a_value_leaves_what_is_beside_it() -> None:
    tree = RUN.model_dump(mode="json")
    changed = with_values(tree, {"optim.schedule.kind": "linear", "optim.groups.text.lr_factor": 2.0})
    assert changed["optim"]["schedule"] == {**tree["optim"]["schedule"], "kind": "linear"}
    assert changed["optim"]["groups"]["text"]["lr_factor"] == 2.0
    assert tree["optim"]["schedule"]["kind"] == "cosine"


BAD = [
    ({"optim.peek_lr": [1e-3]}, r"optim\.peek_lr.*unknown key.*did you mean 'peak_lr'"),
    ({"optim.peak_lr": {"log_uniform": [1e-2, 1e-4]}}, r"reversed: write \[0.0001, 0.01\]"),
    ({"optim.peak_lr": {"uniform": [1e-2, 1e-2]}}, "is empty"),
    ({"optim.peak_lr": {"log_uniform": [0, 1e-2]}}, "must begin above 0"),
    ({"optim.peak_lr": []}, "at least 1 item"),
    ({"optim.peak_lr": {"log_uniform": [1e-4, 1e-2], "choice": [1]}}, "exactly one of"),
    ({"optim.peak_lr": {}}, "not none"),
    ({"optim.peak_lr": {"normal": [0, 1]}}, "unknown key"),
    ({"optim.peak_lr": ["high"]}, r"optim\.peak_lr = 'high'"),
    ({"optim.peak_lr": [1e-3, 1e-3]}, "choice = "),
    ({"optim.schedule.warmup_steps": {"uniform": [1, 10]}}, r"warmup_steps = 4\.4"),
    ({"optim.beta1": {"uniform": [0.5, 1.5]}}, r"optim\.beta1 = 1\.5"),
    ({"objective.temperature": [0.1], "objective.logit_scale": [10.0]}, "conflict"),
    ({"objective.logit_scale": [10.0]}, "exactly one of objective.temperature"),
    ({"optim.schedule": [{"kind": "linear"}], "optim.schedule.end": [0.1]}, "conflict"),
    ({"name": ["a", "b"]}, "name cannot be searched"),
    ({"resources.workers": [1, 3]}, r"workers = 3 is invalid: .*cannot be shared equally"),
    ({"seed": {"integer": [0, 9], "when": {"optim.kind": ["adamw"]}}}, "must be a key of the space before"),
    ({"optim.kind": ["adamw"], "seed": {"integer": [0, 9], "when": {"optim.kind": ["lion"]}}}, "never occurs"),
    ({}, "space is empty"),
]


@pytest.mark.parametrize(("space", "message"), BAD)
def test_a_space_that_cannot_be_is_refused_before_anything_starts(space: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        sweep(space).check(100)
    assert "\n" not in str(caught.value)


def test_what_does_not_go_together_is_refused() -> None:
    lr = {"optim.peak_lr": [1e-3, 1e-2]}
    with pytest.raises(ConfigError, match=r"metric = 'accuracy' is not measured.*validation_loss"):
        sweep(lr, metric="accuracy")
    with pytest.raises(ConfigError, match=r"search\.kind to random or grid"):
        sweep(lr, scheduler={"kind": "pbt"}, search={"kind": "tpe"})
    with pytest.raises(ConfigError, match="repeats = "):
        sweep(lr, scheduler={"kind": "pbt"}, repeats=2)
    with pytest.raises(ConfigError, match="remove seed from space"):
        sweep({**lr, "seed": [1, 2]}, repeats=2)
    with pytest.raises(ConfigError, match="global_batch cannot change"):
        sweep({**lr, "global_batch": [64, 128]}, scheduler={"kind": "pbt"}).check(100)
    with pytest.raises(ConfigError, match="unknown preset 'rates'"):
        sweep(lr, presets=["rates"])


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("recipe", ["digits", "vit_b32", "vit_b32_sigmoid", "rn50"])
def test_a_preset_fits_the_recipes(name: str, recipe: str) -> None:
    run = RECIPES[recipe]()
    for steps in (30, 10_000):
        space = Space(PRESETS[name](run, steps))
        space.check(run)
        for number in range(20):
            validated(RunConfig, with_values(run.model_dump(mode="json"), space.draw((0, number))))


def test_own_keys_go_before_a_preset() -> None:
    own = sweep({"optim.peak_lr": [1e-3, 2e-3]}, presets=["learning_rate"]).space_of(100)
    assert own.domains["optim.peak_lr"].values == [1e-3, 2e-3]
    assert "optim.weight_decay" in own.domains


def test_random_points_are_different_and_a_small_space_ends() -> None:
    config = sweep({"optim.kind": ["adamw"], "optim.beta1": [0.9, 0.95]}, budget={"trials": 10}, repeats=2)
    found = candidates(config, config.check(100))
    assert sorted(one["optim.beta1"] for one in found) == [0.9, 0.95]
    trials = with_repeats(config, found)
    assert [(one["number"], one["repeat"]) for one in trials] == [(0, 0), (1, 0), (0, 1), (1, 1)]


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_random_points_are_those_of_the_seed(seed: int) -> None:
    space = {"optim.peak_lr": {"log_uniform": [1e-4, 1e-2]}}
    few, many = (sweep(space, search={"seed": seed}, budget={"trials": count}) for count in (3, 8))
    assert candidates(many, many.check(100))[:3] == candidates(few, few.check(100))


def test_a_grid_is_whole_and_too_large_a_one_is_refused() -> None:
    lr = {"log_uniform": [1e-4, 1e-2], "grid_points": 3}
    config = sweep({"optim.peak_lr": lr, "optim.beta1": [0.9, 0.95]}, search={"kind": "grid"}, budget={"trials": 1})
    found = candidates(config, config.check(100))
    assert len(found) == 6
    assert {round(one["optim.peak_lr"], 12) for one in found} == {1e-4, 1e-3, 1e-2}
    wide = {f"optim.groups.{name}.lr_factor": {"uniform": [0.1, 1], "grid_points": 100} for name in ("image", "text")}
    large = sweep({**wide, "optim.beta1": {"uniform": [0.1, 0.2], "grid_points": 100}}, search={"kind": "grid"})
    with pytest.raises(ConfigError, match="more than 100,000"):
        candidates(large, large.check(100))


def test_learning_rates_of_a_proxy_are_scaled_to_the_run() -> None:
    run = digits()  # width 96, batch 128
    proxy = TransferConfig(width=48, global_batch=32)
    assert lr_factor(proxy, run) == pytest.approx(math.sqrt(4) / 2)
    half = {"width": 48, "global_batch": 128}
    space = {"optim.peak_lr": {"log_uniform": [1e-4, 1e-2]}, "optim.beta1": {"uniform": [0.8, 0.9]}}
    found = sweep(space, transfer=half).space_of(100).domains
    assert found["optim.peak_lr"].log_uniform == pytest.approx((5e-5, 5e-3))
    assert found["optim.beta1"].uniform == (0.8, 0.9)
    listed = sweep({"optim.peak_lr": [1e-3]}, transfer={**half, "width_power": 0.0}).space_of(100)
    assert listed.domains["optim.peak_lr"].choice == [1e-3]


def test_the_recipe_goes_through_a_file() -> None:
    from raylens.config import dump_yaml, load_yaml

    for recipe in SWEEPS.values():
        config = recipe()
        config.check(100)
        assert validated(SweepConfig, load_yaml(dump_yaml(config), "file")) == config
