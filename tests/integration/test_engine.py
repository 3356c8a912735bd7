"""The engine's settings against plain torch in one process: precision, offload, accumulation, averages, reshaping."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from raylens.config import OptimConfig, RunConfig, ScheduleConfig, validated
from raylens.config.deepspeed_keys import ALLOWED, OWN, UNFIT
from raylens.models import DualEncoder
from raylens.train.checkpoint.consolidate import consolidate
from raylens.train.checkpoint.snapshot import Snapshot
from raylens.train.engine.ema import decay_at
from raylens.train.engine.optimizer import build_optimizer, set_learning_rates
from raylens.train.loop.batch import Batch
from raylens.train.loop.schedule import TrainingProgress
from raylens.train.loop.stats import StepStats
from tests.helpers.covering import covering
from tests.helpers.ranks import RankPool

WORKER = "tests.integration._engine_worker"
B, S, T, VOCAB, STEPS, HALF_OF_THEM = 16, 16, 12, 600, 10, 5
MODEL = {
    "embed_dim": 8,
    "image": {"size": S, "patch": 4, "width": 16, "layers": 2, "heads": 2},
    "text": {"context": T, "vocab": VOCAB, "width": 16, "layers": 2, "heads": 2},
}
EMA = 0.7
SCALING = {"fp16": {"initial_scale_power": 3, "loss_scale_window": 4}}
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
ROUNDING = {"fp32": 2e-5, "amp_bf16": 2e-2, "bf16": 2e-2, "fp16": 1e-2}
"""Relative, of the losses. A worker rounds sums of gradients in another order than one process does."""


class Setting(NamedTuple):
    """What a run is tried with."""

    workers: int
    stage: int
    precision: str
    micro_batches: int = 2
    offload: bool = False
    optimizer: str = "adamw"
    blocks: bool = False
    """Computed again in the backward pass."""
    layer_decay: float = 1.0

    def __str__(self) -> str:
        extra = [name for name in ("offload", "blocks") if getattr(self, name)]
        return "-".join(map(str, [*self[:4], self.optimizer, self.layer_decay, *extra]))

    def config(self) -> RunConfig:
        optim = OptimConfig(
            kind="lion" if self.optimizer == "lion" else "adamw",
            peak_lr=3e-4 if self.optimizer == "lion" else 3e-3,
            schedule=ScheduleConfig(warmup_steps=4),
            weight_decay=0.1,
            clip_norm=0.5,
            ema_decay=EMA,
            layer_decay=self.layer_decay,
            eps=1e-4,
        )
        tree = {
            "name": "engine",
            "global_batch": B,
            "data": {"train": "unused"},
            "model": MODEL,
            "precision": self.precision,
            "optim": optim.model_dump(),
            "scale": {"workers": self.workers},
            "towers": {"checkpoint_blocks": self.blocks},
            "zero": {
                "stage": self.stage,
                "offload_optimizer": self.offload,
                "deepspeed": SCALING if self.precision == "fp16" else {},
            },
        }
        return validated(RunConfig, tree)


HALVES = [Setting(2, 1, "fp32"), Setting(2, 3, "fp32"), Setting(4, 2, "fp32"), Setting(2, 2, "fp16")]
"""Whose state after half of the steps is taken up; below, by whom."""
CHANGES = [
    (HALVES[0], HALVES[0]),
    (HALVES[1], HALVES[1]),
    (HALVES[0], Setting(4, 3, "fp32")),
    (HALVES[1], Setting(4, 0, "fp32")),
    (HALVES[2], Setting(2, 0, "fp32")),
    (HALVES[2], Setting(2, 3, "fp32")),
    (HALVES[3], Setting(4, 3, "fp16")),
]
PRECISIONS = ("fp32", "amp_bf16", "bf16", "fp16")


def is_allowed(workers: int, stage: int, precision: str, micro_batches: int, offload: bool, *_: Any) -> bool:
    """Half precision and offload need masters that are spread."""
    return stage > 0 or (precision in ("fp32", "amp_bf16") and not offload)


FACTORS = ((2, 4), (0, 1, 2, 3), PRECISIONS, (1, 2), (False, True), ("adamw", "lion"), (False, True), (1.0, 0.3))
SETTINGS = [Setting(*row) for row in covering(FACTORS, is_allowed, given=HALVES)]
"""Every pair that is allowed occurs."""


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


BATCHES = batches_of()


@cache
def weights_of() -> dict[str, Tensor]:
    torch.manual_seed(11)
    return built(HALVES[0].config()).state_dict()


def built(config: RunConfig) -> DualEncoder:
    return DualEncoder(config.model, end_id=1, mean=(0.5,) * 3, std=(0.5,) * 3)


@cache
def reference(precision: str, kind: str, layer_decay: float) -> tuple[list[float], dict[str, Tensor]]:
    """Losses, and averaged weights: master weights in fp32, the model that computes a copy of them."""
    config = Setting(1, 1, precision, optimizer=kind, layer_decay=layer_decay).config()
    masters, model = built(config), built(config)
    masters.load_state_dict(weights_of())
    half = HALF.get(config.precision)
    model.to(half or torch.float32)
    optimizer = build_optimizer(masters, config.optim)
    average = {name: tensor.detach().clone() for name, tensor in masters.named_parameters()}
    scaling = 8.0 if config.precision == "fp16" else 1.0
    losses = []
    for step, batch in enumerate(BATCHES):
        model.load_state_dict(masters.state_dict())
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=config.precision == "amp_bf16"):
            pixels, ids = torch.from_numpy(batch.image_BSSC), torch.from_numpy(batch.ids_BT)
            image, text, log_scale, _ = model(pixels, ids)
        # In half precision the scale is that of the master copy.
        log_scale = log_scale + (masters.logit_scale.detach()[0] - log_scale).detach()
        logits, target = log_scale.exp() * image.float() @ text.float().T, torch.arange(B)
        loss = (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2
        model.zero_grad()
        (loss * scaling).backward()
        for master, copy in zip(masters.parameters(), model.parameters(), strict=True):
            assert copy.grad is not None
            master.grad = copy.grad.float() / scaling
        torch.nn.utils.clip_grad_norm_(masters.parameters(), config.optim.clip_norm)
        set_learning_rates(optimizer, config.optim, TrainingProgress(step, STEPS))
        optimizer.step()
        for name, tensor in masters.named_parameters():
            average[name].lerp_(tensor.detach(), 1 - decay_at(config.optim.ema_decay, step))
        losses.append(loss.item())
    return losses, average


def case_of(
    setting: Setting,
    *,
    after: list[Snapshot] | None = None,
    scaling: dict[str, Any] | None = None,
) -> dict[str, Any]:
    config = setting.config()
    if scaling is not None:
        config = config.model_copy(update={"zero": config.zero.model_copy(update={"deepspeed": scaling})})
    first = HALF_OF_THEM if after else 0
    return {
        "config": config,
        "weights": weights_of(),
        "micro_batches": setting.micro_batches,
        "batches": BATCHES[first:],
        "from": after,
        "first": first,
        "kept_at": None if after else HALF_OF_THEM,
        "steps": STEPS,
    }


RankResults = list[dict[str, Any]]
"""Of each rank: the statistics of the steps, the state after half of them and after all, and its images' embeddings."""


@pytest.fixture(scope="module")
def trained(ranks: RankPool) -> Callable[[Setting], RankResults]:
    """Takes the steps of a setting when they are first asked for."""
    return cache(lambda setting: ranks.run(f"{WORKER}:take_steps", setting.workers, case_of(setting)))


def stats_of(results: RankResults) -> list[StepStats]:
    """The statistics, which are equal on all ranks."""
    stats: list[StepStats] = results[0]["stats"]
    assert all(one["stats"] == stats for one in results)
    return stats


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_losses_and_averages_are_those_of_plain_torch(
    trained: Callable[[Setting], RankResults], setting: Setting
) -> None:
    losses, average = reference(setting.precision, setting.optimizer, setting.layer_decay)
    results = trained(setting)
    stats = stats_of(results)
    rounding = ROUNDING[setting.precision]
    assert [step.loss for step in stats] == pytest.approx(losses, rel=rounding)
    assert min(losses) < 0.7 * max(losses)  # the weights move: the tolerance is not what hides a difference
    assert not any(step.skipped for step in stats)
    weights = consolidate(setting.config().model, [one["state"].tensors for one in results], averaged=True)
    moved = math.sqrt(sum(float((average[n] - w).square().sum()) for n, w in weights_of().items()))
    apart = math.sqrt(sum(float((average[n] - weights[n]).square().sum()) for n in average))
    # Lion steps by a sign, which rounding turns where a gradient is next to nothing.
    assert apart < (0.1 if setting.optimizer == "lion" else 20 * rounding) * moved
    # Evaluation computes with the average.
    model = built(setting.config())
    model.load_state_dict(average)
    with torch.no_grad():
        image_BD = model.eval().encode_image(torch.from_numpy(BATCHES[0].image_BSSC))
    computed_BD = torch.cat([one["image_BD"] for one in results]).float()
    assert (computed_BD - image_BD).norm() < 0.05 * image_BD.norm()


def test_a_loss_scale_that_is_too_large_costs_a_few_steps(ranks: RankPool) -> None:
    case = case_of(Setting(2, 3, "fp16"), scaling={"fp16": {"initial_scale_power": 11}})
    results = ranks.run(f"{WORKER}:take_steps", 2, case)
    stats = stats_of(results)
    skipped = [step.skipped for step in stats]
    assert skipped[0]
    assert not any(skipped[STEPS // 2 :])
    assert stats[-1].loss < stats[0].loss - 0.5
    assert [one["state"].applied for one in results] == [skipped.count(False)] * 2


def test_layer_decay_holds_the_first_layers_back(trained: Callable[[Setting], RankResults]) -> None:
    name, plain = "visual.conv1.weight", HALVES[0]
    slow = next(one for one in SETTINGS if (one.precision, one.optimizer, one.layer_decay) == ("fp32", "adamw", 0.3))
    assert stats_of(trained(slow))[0].loss == pytest.approx(stats_of(trained(plain))[0].loss, rel=ROUNDING["fp32"])
    moved = []
    for setting in (plain, slow):
        weights = consolidate(setting.config().model, [one["state"].tensors for one in trained(setting)])
        moved.append((weights[name] - weights_of()[name]).norm())
    assert 0 < moved[1] < 0.3 * moved[0]


@pytest.mark.parametrize(("before", "after"), CHANGES, ids=str)
def test_a_state_is_taken_up_by_any_number_of_workers_at_any_stage(
    ranks: RankPool, trained: Callable[[Setting], RankResults], before: Setting, after: Setting
) -> None:
    whole = trained(before)
    case = case_of(after, after=[one["half"] for one in whole])
    results = ranks.run(f"{WORKER}:take_steps", after.workers, case)
    losses = [step.loss for step in stats_of(whole)[HALF_OF_THEM:]]
    assert [step.loss for step in stats_of(results)] == pytest.approx(losses, rel=ROUNDING[before.precision])
    if before == after:
        # As if nothing had been: weights, moments and averages to the last bit.
        for mine, theirs in zip(results, whole, strict=True):
            state, undisturbed = mine["state"], theirs["state"]
            assert state.tensors.keys() == undisturbed.tensors.keys()
            assert all(torch.equal(state.tensors[key], undisturbed.tensors[key]) for key in state.tensors)
            assert (state.scaler, state.applied) == (undisturbed.scaler, undisturbed.applied)


def test_the_lists_of_deepspeed_s_keys_are_those_of_the_installed_one(ranks: RankPool) -> None:
    (results,) = ranks.run(f"{WORKER}:deepspeed_keys", 1, None)
    refused = set(OWN) | set(UNFIT)
    for section, keys in results.items():
        prefix = f"{section}." if section else ""
        known = {key for key in keys if f"{prefix}{key}" not in refused}
        # What cannot be asked of it by a dictionary alone: it reads this only with a mesh of devices.
        assert set(ALLOWED[section]) == known, section
        local = {path.removeprefix(prefix) for path in refused if path.startswith(prefix)}
        assert {key for key in local if "." not in key} - set(keys) <= {"sequence_parallel_size"}, section
