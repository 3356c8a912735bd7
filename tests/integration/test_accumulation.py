"""Workers, micro-batches and ZeRO stages against one process in plain torch: the same update of every parameter."""

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from raylens.config import (
    BagOfWordsConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimConfig,
    RunConfig,
    ScheduleConfig,
    TextTransformerConfig,
    TowersConfig,
    VisionTransformerConfig,
    validated,
)
from raylens.models import DualEncoder
from raylens.models.training import prepare_towers
from raylens.train.checkpoint.consolidate import consolidate
from raylens.train.engine.forward import sample_keys
from raylens.train.engine.optimizer import parameter_groups
from raylens.train.loop.batch import Batch
from raylens.train.loop.stats import StepStats
from tests.helpers.covering import covering
from tests.helpers.ranks import RankPool

WORK = "tests.integration._accumulate_worker:take_steps"
B, S, T, VOCAB = 16, 16, 12, 600
STEPS, LR = 2, 0.5
OPTIM = OptimConfig(  # a large eps makes the update nearly linear in the gradient: rounding is not blown up to a sign
    peak_lr=LR,
    schedule=ScheduleConfig(kind="constant", warmup_steps=0),
    eps=1.0,
    weight_decay=0.1,
    clip_norm=0.5,
)
EPS = 2.0**-24
POISON, POISONED = 599, (3, 12)
SIZES, MICRO_BATCHES, STAGES = (1, 2, 4), (1, 2, 4), (0, 1, 2, 3)
KINDS = ("softmax", "sigmoid", "triplet", "bag_of_words", "caption")
FACTORS = (SIZES, MICRO_BATCHES, STAGES, KINDS)


def config_of(kind: str, workers: int, stage: int) -> RunConfig:
    text: Any = TextTransformerConfig(context=T, vocab=VOCAB, width=16, layers=2, heads=2)
    if kind == "bag_of_words":
        text = BagOfWordsConfig(context=T, vocab=VOCAB, width=16)
    model = ModelConfig(
        embed_dim=8,
        logit_bias=kind == "sigmoid",
        image=VisionTransformerConfig(size=S, patch=4, width=16, layers=2, heads=2),
        text=text,
    )
    return validated(
        RunConfig,
        {
            "name": "equal",
            "seed": 5,
            "global_batch": B,
            "data": {"train": "unused"},
            "model": model.model_dump(),
            "optim": OPTIM.model_dump(),
            "objective": ObjectiveConfig.model_validate({"kind": kind, "bias": -2.0}).model_dump(),
            "towers": TowersConfig(dropout=0.2, patch_dropout=0.3).model_dump(),
            "scale": {"workers": workers},
            "zero": {"stage": stage},
        },
    )


def batches_of() -> list[Batch]:
    draw = np.random.default_rng(3)
    made = []
    for step in range(STEPS):
        ids = np.zeros((B, T), dtype=np.int32)
        for row, words in enumerate(draw.integers(0, T - 2, B)):
            ids[row, : words + 2] = [2, *draw.integers(3, 40, words), 1]
        place = np.arange(step * B, (step + 1) * B)
        made.append(Batch(draw.integers(0, 256, (B, S, S, 3), dtype=np.uint8), ids, place, place, place))
    return made


def model_of(config: RunConfig) -> DualEncoder:
    return DualEncoder(config.model, end_id=1, mean=(0.5,) * 3, std=(0.5,) * 3, bias=config.objective.bias)


def reference(config: RunConfig, weights: dict[str, Tensor]) -> tuple[list[float], dict[str, Tensor]]:
    """All of each batch at once, in fp64, by the losses' definitions."""
    model = prepare_towers(model_of(config), config.towers)
    model.load_state_dict(weights)
    model.double()
    groups = parameter_groups(model, config.optim)
    betas = (config.optim.beta1, config.optim.beta2)
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=betas, eps=config.optim.eps)
    if config.objective.kind in ("triplet", "caption"):
        model.logit_scale.requires_grad_(False)
    losses = []
    for batch in batches_of():
        loss = loss_by_definition(model, config, batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.optim.clip_norm)
        optimizer.step()
        losses.append(loss.item())
    return losses, {name: tensor.detach() for name, tensor in model.state_dict().items()}


def loss_by_definition(model: DualEncoder, config: RunConfig, batch: Batch) -> Tensor:
    keys = torch.from_numpy(sample_keys(config.seed, batch.position_B))
    pixels, ids = torch.from_numpy(batch.image_BSSC), torch.from_numpy(batch.ids_BT)
    kind, target = config.objective.kind, torch.arange(B)
    if kind == "caption":
        logits, following, row = model(pixels, ids, keys, "caption")
        of_token = functional.cross_entropy(logits, following, reduction="none")
        return torch.stack([of_token[row == one].sum() for one in range(B)]).mean()
    if kind == "bag_of_words":
        image, words, log_scale, end = model(pixels, ids, keys, "words")
        likely = (log_scale.exp() * image @ words.T).log_softmax(dim=1)
        total = torch.zeros((), dtype=torch.float64)
        for one in range(B):
            said = set(ids[one, 1 : end[one]].tolist()) or {1}
            total = total - torch.stack([likely[one, word] for word in said]).mean()
        return total / B
    image, text, log_scale, bias = model(pixels, ids, keys)
    cosine = image @ text.T
    if kind == "triplet":
        hinges = torch.stack([(0.2 + of - of.diagonal()[:, None]).clamp(min=0) for of in (cosine, cosine.T)])
        return hinges[:, ~torch.eye(B, dtype=torch.bool)].sum() / B
    logits = log_scale.exp() * cosine
    if kind == "sigmoid":
        return -functional.logsigmoid((2 * torch.eye(B) - 1) * (logits + bias)).sum() / B
    return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2


@cache
def weights_of(kind: str) -> dict[str, Tensor]:
    torch.manual_seed(11)
    model = model_of(config_of(kind, 1, 0))
    with torch.no_grad():
        model.logit_scale.fill_(math.log(8.0))
    return model.state_dict()


def poisoned(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """One token's embedding is no number."""
    embedding = weights["text.token_embedding.weight"].clone()
    embedding[POISON] = math.nan
    return weights | {"text.token_embedding.weight": embedding}


def poisoned_batches() -> list[Batch]:
    """The token is said in two captions of the first batch, of different workers, and in none of the second."""
    first, *rest = batches_of()
    for row in POISONED:
        first.ids_BT[row, :3] = [2, POISON, 1]
    return [first, *rest]


Key = tuple[int, int, int, str]
"""Workers, micro-batches, stage and objective."""
KEYS: list[Key] = [(workers, micro, stage, kind) for workers, micro, stage, kind in covering(FACTORS)]
"""Every pair of settings occurs."""
POISONED_CASE = "poisoned"
POISONED_KEYS: list[Key] = [(2, 2, stage, POISONED_CASE) for stage in STAGES]


def case_of(workers: int, micro_batches: int, stage: int, kind: str) -> dict[str, Any]:
    broken = kind == POISONED_CASE
    kind = "softmax" if broken else kind
    return {
        "config": config_of(kind, workers, stage),
        "weights": poisoned(weights_of(kind)) if broken else weights_of(kind),
        "micro_batches": micro_batches,
        "batches": poisoned_batches() if broken else batches_of(),
    }


@cache
def reference_of(kind: str) -> tuple[list[float], dict[str, Tensor]]:
    return reference(config_of(kind, 1, 0), weights_of(kind))


def stats_and_weights(ranks: RankPool, key: Key) -> tuple[list[StepStats], dict[str, Tensor]]:
    """The statistics, which are equal on all ranks, and the weights that their parts are put together to."""
    case = case_of(*key)
    results = ranks.run(WORK, key[0], case)
    assert all(repr(one["stats"]) == repr(results[0]["stats"]) for one in results)  # NaN does not equal itself
    return results[0]["stats"], consolidate(case["config"].model, [one["tensors"] for one in results])


@pytest.mark.parametrize("key", KEYS, ids=lambda key: "{}-workers-{}-micro-batches-zero-{}-{}".format(*key))
def test_every_parameter_is_updated_alike(ranks: RankPool, key: Key) -> None:
    losses, expected = reference_of(key[-1])
    before = weights_of(key[-1])
    stats, weights = stats_and_weights(ranks, key)
    assert [step.loss for step in stats] == pytest.approx(losses, rel=2e-6)
    assert not any(step.skipped for step in stats)
    assert weights.keys() == expected.keys()
    moved = {name: expected[name] - before[name].double() for name in expected}
    for name, update in moved.items():
        error = (weights[name].double() - before[name].double() - update).norm()
        # Beside the relative error: weights are stored in fp32, once a step.
        assert error <= 1e-5 * update.norm() + STEPS * EPS * before[name].norm(), name


@pytest.mark.parametrize("key", POISONED_KEYS, ids=str)
def test_a_step_that_is_not_finite_changes_nothing(ranks: RankPool, key: Key) -> None:
    (skipped, taken), after = stats_and_weights(ranks, key)
    assert skipped.skipped
    assert not math.isfinite(skipped.loss)
    assert skipped.broken == POISONED
    assert not taken.skipped  # the poisoned token is in no caption of this batch
    assert math.isfinite(taken.loss)
    assert math.isfinite(taken.grad_norm)
    before = poisoned(weights_of("softmax"))
    # One step of at most LR with a gradient that was clipped, and decay: what the skipped one would have added is NaN.
    for name, weight in after.items():
        known = before[name].isfinite()
        assert torch.equal(weight.isfinite(), known), name
        assert (weight - before[name])[known].abs().max() < LR


@pytest.mark.parametrize("off", ["dropout", "patch_dropout"])
def test_dropout_is_on(off: str) -> None:
    config = config_of("softmax", 1, 0)
    plain = config.model_copy(update={"towers": config.towers.model_copy(update={off: 0.0})})
    losses, _ = reference(plain, weights_of("softmax"))
    assert abs(losses[0] - reference_of("softmax")[0][0]) > 1e-3
