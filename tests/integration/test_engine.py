"""The engine's settings against plain torch in one process: precision, offload, accumulation, averages, reshaping."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from raylens.config import OptimConfig, RunConfig, ScheduleConfig, validated
from raylens.config.deepspeed_keys import ALLOWED, OWN, UNFIT
from raylens.models import DualEncoder
from raylens.train.assemble import assembled
from raylens.train.average import decay_at
from raylens.train.batch import Batch
from raylens.train.optimizer import optimizer_of, take_rates
from raylens.train.schedule import Moment
from tests.integration.ranks import run_ranks

WORKER = Path(__file__).with_name("_engine_worker.py")
B, S, T, VOCAB, STEPS = 16, 16, 12, 600, 20
MODEL = {
    "embed_dim": 8,
    "image": {"size": S, "patch": 4, "width": 16, "layers": 2, "heads": 2},
    "text": {"context": T, "vocab": VOCAB, "width": 16, "layers": 2, "heads": 2},
}
EMA = 0.7
SCALING = {"fp16": {"initial_scale_power": 3, "loss_scale_window": 8}}
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
ROUNDING = {"fp32": 2e-5, "amp_bf16": 2e-2, "bf16": 2e-2, "fp16": 1e-2}
"""Relative, of the loss over 20 steps. A worker rounds sums of gradients in another order than one process does; in
fp16 the last loss, a fortieth of the first, was 3e-3 off on AMD's processors and 7e-3 on Intel's."""


def config_of(name: str, workers: int, **changes: Any) -> RunConfig:
    optim = OptimConfig(
        peak_lr=3e-3, schedule=ScheduleConfig(warmup_steps=4), weight_decay=0.1, clip_norm=0.5, ema_decay=EMA, eps=1e-4
    )
    tree = {
        "name": name,
        "global_batch": B,
        "data": {"train": "unused"},
        "model": MODEL,
        "optim": optim.model_dump() | changes.pop("optim", {}),
        "scale": {"workers": workers},
        **changes,
    }
    return validated(RunConfig, tree)


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


def weights_of() -> dict[str, Tensor]:
    torch.manual_seed(11)
    return built(config_of("any", 1)).state_dict()


def built(config: RunConfig) -> DualEncoder:
    return DualEncoder(config.model, end_id=1, mean=(0.5,) * 3, std=(0.5,) * 3)


def reference(config: RunConfig, weights: dict[str, Tensor]) -> tuple[list[float], dict[str, Tensor]]:
    """Losses, and averaged weights: master weights in fp32, the model that computes a copy of them."""
    masters, model = built(config), built(config)
    masters.load_state_dict(weights)
    half = HALF.get(config.precision)
    model.to(half or torch.float32)
    optimizer = optimizer_of(masters, config.optim)
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
        take_rates(optimizer, config.optim, Moment(step, STEPS))
        optimizer.step()
        for name, tensor in masters.named_parameters():
            average[name].lerp_(tensor.detach(), 1 - decay_at(config.optim.ema_decay, step))
        losses.append(loss.item())
    return losses, average


PRECISIONS = {
    2: [("fp32", "amp_bf16"), *[("fp32", "amp_bf16", "bf16", "fp16")] * 3],
    # Stage 3 takes ten times as long as the others where four workers share two cores.
    4: [("fp32", "amp_bf16"), ("fp32", "bf16", "fp16"), ("fp32", "amp_bf16", "fp16"), ("fp32", "bf16")],
}
"""For each number of workers, those that each ZeRO stage is tried with."""


def settings() -> list[tuple[str, int, dict[str, Any], int]]:
    """Name, workers, changes to the configuration, and micro-batches."""
    found: list[tuple[str, int, dict[str, Any], int]] = []
    for workers in (2, 4):
        for stage in (0, 1, 2, 3):
            zero: dict[str, Any] = {"stage": stage}
            for precision in PRECISIONS[workers][stage]:
                keys = zero | ({"deepspeed": SCALING} if precision == "fp16" else {})
                name = f"{precision}-{stage}-{workers}"
                found.append((name, workers, {"precision": precision, "zero": keys}, 2 if stage % 2 else 1))
            if stage:
                offload = {"zero": zero | {"offload_optimizer": True}, "precision": "bf16" if workers == 4 else "fp32"}
                found.append((f"offload-{stage}-{workers}", workers, offload, 1))
        again = {"towers": {"checkpoint_blocks": True}, "zero": {"stage": 2}}
        found.append((f"blocks-{workers}", workers, again, 2))
        found.append((f"lion-{workers}", workers, {"optim": {"kind": "lion", "peak_lr": 3e-4}}, 1))
    return found


SETTINGS = settings()
LARGE: tuple[str, int, dict[str, Any], int] = (
    "large",
    2,
    {"precision": "fp16", "zero": {"stage": 3, "deepspeed": {"fp16": {"initial_scale_power": 14}}}},
    2,
)
"""A loss scale that the first gradients are too large for."""


def case(
    name: str,
    workers: int,
    changes: dict[str, Any],
    micro_batches: int,
    *,
    after: Path | None = None,
    last: int = STEPS,
) -> dict[str, Any]:
    first = STEPS // 2 if after else 0
    return {
        "name": name,
        "config": config_of(name, workers, **changes),
        "weights": weights_of(),
        "micro_batches": micro_batches,
        "batches": BATCHES[first:last],
        "from": after,
        "first": first,
        "steps": STEPS,
    }


HALVES = [(2, 1, "fp32"), (2, 3, "fp32"), (4, 2, "fp32"), (2, 2, "fp16")]
"""Workers, stage and precision of the first half of the steps; below, of the second."""
CHANGES = [
    ((2, 1, "fp32"), (2, 1, "fp32")),
    ((2, 3, "fp32"), (2, 3, "fp32")),
    ((2, 1, "fp32"), (4, 3, "fp32")),
    ((2, 3, "fp32"), (4, 0, "fp32")),
    ((4, 2, "fp32"), (2, 0, "fp32")),
    ((4, 2, "fp32"), (2, 3, "fp32")),
    ((2, 2, "fp16"), (4, 3, "fp16")),
]


def keys_of(setting: tuple[int, int, str]) -> tuple[str, int, dict[str, Any], int]:
    workers, stage, precision = setting
    keys = {"stage": stage} | ({"deepspeed": SCALING} if precision == "fp16" else {})
    return f"half-{workers}-{stage}-{precision}", workers, {"precision": precision, "zero": keys}, 2


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of the results, by the names of the cases; second halves start from what first halves left."""
    folder = tmp_path_factory.mktemp("engine")

    def run(workers: int, cases: list[dict[str, Any]]) -> None:
        (folder / f"meeting-{workers}").unlink(missing_ok=True)
        torch.save(cases, folder / f"cases-{workers}.pt")
        run_ranks(WORKER, workers, folder)

    changes = [
        case(*keys_of(after), after=folder / f"{keys_of(before)[0]}.pt") | {"name": f"change-{number}"}
        for number, (before, after) in enumerate(CHANGES)
    ]
    first = [case(*keys_of(one), last=STEPS // 2) for one in HALVES]
    whole = [case(*one) for one in (*SETTINGS, LARGE)]
    # In as few starts as there can be, since a start takes ten seconds.
    for workers in (2, 4):
        run(workers, _of(workers, whole + first + (changes if workers == 4 else [])))
    run(2, _of(2, changes))
    return folder


def _of(workers: int, cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for one in cases if one["config"].scale.workers == workers]


def load(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(path, weights_only=False)
    return found


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda one: one[0])
def test_losses_and_averages_are_those_of_plain_torch(results: Path, setting: tuple[str, int, Any, int]) -> None:
    name, workers, changes, _ = setting
    config = config_of(name, workers, **changes)
    losses, average = reference(config, weights_of())
    found = load(results / f"{name}.pt")
    rounding = ROUNDING[config.precision]
    assert [told.loss for told in found["told"]] == pytest.approx(losses, rel=rounding)
    assert losses[-1] != pytest.approx(losses[0], rel=0.05)  # it learned: the tolerance is not what hides it
    assert not any(told.skipped for told in found["told"])
    weights = assembled(config.model, [state.tensors for state in found["states"]], averaged=True)
    moved = math.sqrt(sum(float((average[n] - w).square().sum()) for n, w in weights_of().items()))
    apart = math.sqrt(sum(float((average[n] - weights[n]).square().sum()) for n in average))
    # Lion steps by a sign, which rounding turns where a gradient is next to nothing.
    assert apart < (0.1 if config.optim.kind == "lion" else 20 * rounding) * moved
    # Evaluation computes with the average.
    model = built(config)
    model.load_state_dict(average)
    with torch.no_grad():
        image_BD = model.eval().encode_image(torch.from_numpy(BATCHES[0].image_BSSC))
    assert (found["image_BD"].float() - image_BD).norm() < 0.05 * image_BD.norm()


def test_a_loss_scale_that_is_too_large_costs_a_few_steps(results: Path) -> None:
    told = load(results / "large.pt")["told"]
    skipped = [one.skipped for one in told]
    assert skipped[0]
    assert not any(skipped[10:])
    assert told[-1].loss < told[0].loss - 0.5
    assert [state.applied for state in load(results / "large.pt")["states"]] == [skipped.count(False)] * 2


@pytest.mark.parametrize("number", range(len(CHANGES)), ids=lambda number: f"{CHANGES[number][0]}-{CHANGES[number][1]}")
def test_a_state_is_taken_up_by_any_number_of_workers_at_any_stage(results: Path, number: int) -> None:
    (workers, stage, precision), after = CHANGES[number]
    whole = load(results / f"{precision}-{stage}-{workers}.pt")["told"][STEPS // 2 :]
    found = load(results / f"change-{number}.pt")
    rounding = ROUNDING[precision]
    assert [told.loss for told in found["told"]] == pytest.approx([told.loss for told in whole], rel=rounding)
    if (workers, stage, precision) == after and precision == "fp32" and stage % 2:
        # As if nothing had been: weights, moments and averages to the last bit.
        undisturbed = load(results / f"{precision}-{stage}-{workers}.pt")["states"]
        for mine, theirs in zip(found["states"], undisturbed, strict=True):
            assert mine.tensors.keys() == theirs.tensors.keys()
            assert all(torch.equal(mine.tensors[key], theirs.tensors[key]) for key in mine.tensors)
            assert (mine.scaler, mine.applied) == (theirs.scaler, theirs.applied)


DEEPSPEED_S = """
import json, logging
from deepspeed.runtime import precision_config
from deepspeed.runtime.config import _REMOVED_ZERO_CONFIG_KEYS, DeepSpeedConfig
from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
from deepspeed.runtime.zero.offload_config import DeepSpeedZeroOffloadOptimizerConfig

class Asked(dict):
    def __copy__(self):
        return self
    def keys(self):
        return self
    def __contains__(self, key):
        asked.add(key)
        return super().__contains__(key)
    def __getitem__(self, key):
        asked.add(key)
        return super().__getitem__(key)
    def get(self, key, otherwise=None):
        asked.add(key)
        return super().get(key, otherwise)

asked = set()
DeepSpeedConfig(Asked(train_batch_size=1))
found = {"": sorted(asked)}
for section, model in {
    "zero_optimization": DeepSpeedZeroConfig,
    "zero_optimization.offload_optimizer": DeepSpeedZeroOffloadOptimizerConfig,
    "fp16": precision_config.DeepSpeedFP16Config,
    "bf16": precision_config.DeepSpeedBF16Config,
}.items():
    names = {name for key, field in model.model_fields.items() for name in (key, field.alias) if name}
    found[section] = sorted(names | (set(_REMOVED_ZERO_CONFIG_KEYS) if section == "zero_optimization" else set()))
print("FOUND" + json.dumps(found))
"""
"""Every key that DeepSpeed's configuration looks for, by section."""


def test_the_lists_of_deepspeed_s_keys_are_those_of_the_installed_one() -> None:
    environment = os.environ | {"DS_ACCELERATOR": "cpu"}
    run = subprocess.run([sys.executable, "-c", DEEPSPEED_S], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.split("FOUND")[1])
    refused = set(OWN) | set(UNFIT)
    for section, keys in found.items():
        prefix = f"{section}." if section else ""
        known = {key for key in keys if f"{prefix}{key}" not in refused}
        # What cannot be asked of it by a dictionary alone: it reads this only with a mesh of devices.
        assert set(ALLOWED[section]) == known, section
        own = {path.removeprefix(prefix) for path in refused if path.startswith(prefix)}
        assert {key for key in own if "." not in key} - set(keys) <= {"sequence_parallel_size"}, section
