"""Which loss a run minimises, and whether its temperature is learned."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from raylens.config import (
    BagOfWordsConfig,
    ModelConfig,
    RunConfig,
    TextTransformerConfig,
    VisionTransformerConfig,
    validated,
)
from raylens.models import DualEncoder, Embedded
from raylens.objectives import contrastive_loss, sigmoid_loss, triplet_loss
from raylens.train.engine.forward import CaptionForward, PairForward, WordForward, build_forward, pair_loss
from raylens.train.engine.optimizer import parameter_groups


def config(**objective: Any) -> RunConfig:
    text: Any = TextTransformerConfig(context=8, vocab=600, width=16, layers=1, heads=2)
    if objective.get("kind") == "bag_of_words":
        text = BagOfWordsConfig(context=8, vocab=600, width=16)
    image = VisionTransformerConfig(size=16, patch=8, width=16, layers=1, heads=2)
    model = ModelConfig(embed_dim=8, image=image, text=text, logit_bias=objective.get("kind") == "sigmoid")
    tree = {"name": "f", "global_batch": 8, "data": {"train": "x"}, "model": model.model_dump(), "objective": objective}
    return validated(RunConfig, tree)


def built(of: RunConfig) -> DualEncoder:
    return DualEncoder(of.model, end_id=1, mean=(0.5,) * 3, std=(0.5,) * 3, temperature=1 / of.objective.initial_scale)


@pytest.mark.parametrize(
    ("objective", "module", "learned"),
    [
        ({}, PairForward, True),
        ({"learn_scale": False}, PairForward, False),
        ({"kind": "sigmoid"}, PairForward, True),
        ({"kind": "triplet"}, PairForward, False),
        ({"kind": "bag_of_words"}, WordForward, True),
        ({"kind": "caption"}, CaptionForward, False),
    ],
)
def test_the_scale_is_learned_where_there_is_one(objective: dict[str, Any], module: type, learned: bool) -> None:
    of = config(**objective)
    model = built(of)
    forward = build_forward(model, of)
    assert type(forward) is module
    optimised = {id(parameter) for group in parameter_groups(forward, of.optim) for parameter in group["params"]}
    assert (id(model.logit_scale) in optimised) == learned


@pytest.mark.parametrize(
    ("objective", "scale"), [({"logit_scale": 25}, 25.0), ({"temperature": 0.05}, 20.0), ({}, 1 / 0.07)]
)
def test_a_model_starts_at_the_given_scale(objective: dict[str, Any], scale: float) -> None:
    assert built(config(**objective)).logit_scale.exp().item() == pytest.approx(scale)


def embedded(scale: float) -> Embedded:
    generator = torch.Generator().manual_seed(0)
    image, text = (functional.normalize(torch.randn(6, 8, generator=generator), dim=1) for _ in "ab")
    return Embedded(image, text, torch.tensor(math.log(scale)), torch.tensor(-2.0))


def test_each_kind_is_its_loss_with_the_scale_capped() -> None:
    image, text, log_scale, bias = embedded(500.0)
    capped = log_scale.clamp(max=math.log(40.0))
    assert bias is not None
    wanted: dict[str, Tensor] = {
        "softmax": contrastive_loss(image, text, capped),
        "sigmoid": sigmoid_loss(image, text, capped, bias),
        "triplet": triplet_loss(image, text, margin=0.3),
    }
    for kind, loss in wanted.items():
        objective = config(kind=kind, max_logit_scale=40.0, margin=0.3).objective
        assert torch.equal(pair_loss(embedded(500.0), objective), loss), kind
