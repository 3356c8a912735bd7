"""DeepSpeed's own keys: which may be given, and what is said of the others."""

from typing import Any

import pytest

from raylens.config import RunConfig, validated
from raylens.config.zero import ALLOWED, FREE, OWN, UNFIT, conflicts
from raylens.errors import ConfigError


def nested(path: str, value: object) -> dict[str, Any]:
    tree = value
    for part in reversed(path.split(".")):
        tree = {part: tree}
    assert isinstance(tree, dict)
    return tree


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"zero_optimization": {"reduce_bucket_size": 100_000_000, "overlap_comm": True}},
        {"zero_optimization": {"offload_optimizer": {"pin_memory": False}, "stage3_max_live_parameters": 1}},
        {"fp16": {"initial_scale_power": 12, "loss_scale_window": 8}, "bf16": {"immediate_grad_update": True}},
        {"communication_data_type": "fp32", "wall_clock_breakdown": True},
        {"flops_profiler": {"enabled": True, "whatever": 3}, "zero_optimization": {"leaf_module": {"classes": ["X"]}}},
    ],
    ids=lambda keys: "-".join(keys) or "none",
)
def test_what_changes_nothing_else_may_be_given(keys: dict[str, Any]) -> None:
    assert conflicts(keys) == []
    tree = {"name": "x", "data": {"train": "x"}, "zero": {"deepspeed": keys}}
    assert validated(RunConfig, tree).zero.deepspeed == keys


@pytest.mark.parametrize("path", OWN)
def test_what_raylens_decides_names_its_setting(path: str) -> None:
    (text,) = conflicts(nested(path, 3))
    assert text == f"zero.deepspeed.{path} = 3: use {OWN[path]} instead"


@pytest.mark.parametrize("setting", sorted(set(OWN.values())))
def test_settings_that_are_named_exist(setting: str) -> None:
    node: Any = validated(RunConfig, {"name": "x", "data": {"train": "x"}})
    for part in setting.split("."):
        node = getattr(node, part)


@pytest.mark.parametrize("path", UNFIT)
def test_what_does_not_go_with_raylens_says_why(path: str) -> None:
    (text,) = conflicts(nested(path, {"device": "cpu"}))
    assert text == f"zero.deepspeed.{path} = {{'device': 'cpu'}}: leave it out, because {UNFIT[path]}"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"zero_optimization": {"mics_shard_size": 2}}, "mics_shard_size = 2: leave it out, because checkpoints hold"),
        ({"zero_optimization": {"zero_hpz_partition_size": 4}}, "evenly over all workers"),
        (
            {"zero_optimization": {"offload_param": {"device": "cpu"}}},
            "offload_param = {'device': 'cpu'}: leave it out",
        ),
        ({"fp16": {"fp16_master_weights_and_grads": True}}, "checkpoints hold masters and moments in fp32"),
        ({"fp16": True}, "zero.deepspeed.fp16 = True: expected keys and values"),
        ({"zero_optimization": True}, "zero.deepspeed.zero_optimization = True: expected keys and values"),
        ({"zero_optimization": {"offload_optimizer": None}}, "offload_optimizer = None: expected keys and values"),
        ({"aio": 3}, "zero.deepspeed.aio = 3: expected keys and values"),
        ({"gradient_cliping": 1.0}, "(did you mean 'gradient_clipping', which is optim.clip_norm here?)"),
        (
            {"zero_optimization": {"reduce_bucket_sise": 1}},
            "unknown key 'zero.deepspeed.zero_optimization.reduce_bucket_sise' (did you mean 'reduce_bucket_size'?)",
        ),
        ({"fp16": {"loss_scaling": 1}}, "(did you mean 'loss_scale'?)"),
        ({"bf16": {"xyz": 1}}, "unknown key 'zero.deepspeed.bf16.xyz'; allowed here: immediate_grad_update"),
        ({"zero_optimization": {7: 1}}, "unknown key 'zero.deepspeed.zero_optimization.7'; allowed here:"),
    ],
)
def test_what_would_be_lost_or_break_is_refused(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validated(RunConfig, {"name": "x", "data": {"train": "x"}, "zero": {"deepspeed": keys}})
    assert words in str(caught.value)


def test_all_is_said_at_once() -> None:
    found = conflicts({"amp": {}, "fp16": {"enabled": True, "hysteresys": 2}, "zero_optimization": {"stage": 3}})
    assert [text.split(" = ")[0].split(" (")[0] for text in found] == [
        "zero.deepspeed.amp",
        "zero.deepspeed.fp16.enabled",
        "unknown key 'zero.deepspeed.fp16.hysteresys'",
        "zero.deepspeed.zero_optimization.stage",
    ]


def test_no_key_stands_in_two_lists() -> None:
    allowed = [f"{section}.{key}" if section else key for section, keys in ALLOWED.items() for key in keys]
    whole = [*allowed, *OWN, *UNFIT]
    assert len(whole) == len(set(whole))
    assert {section for section in ALLOWED if section} | set(FREE) <= set(allowed)
