"""A run that goes on from another's state: the same pieces, but for the temperature where it is to be another."""

import math
from pathlib import Path

import pytest
import torch

from raylens.config import ObjectiveConfig
from raylens.errors import CheckpointError, NotFoundError
from raylens.storage import Store, open_store
from raylens.train.checkpoint.cursor import Cursor
from raylens.train.checkpoint.snapshot import Snapshot
from raylens.train.checkpoint.store import CheckpointManifest, Checkpoints
from raylens.train.run.fork import fork, scale_shift
from raylens.workloads.recipes import digits
from tests.unit.train.test_checkpoint import PLAN

PIECES = {
    "model.logit_scale:0:weight": torch.tensor([2.0]),
    "model.logit_scale:0:ema": torch.tensor([1.5]),
    "model.logit_scale:0:exp_avg": torch.tensor([0.25]),
    "model.text.weight:0:weight": torch.arange(6.0),
}


def run_with_checkpoint(place: Path, step: int = 4) -> Store:
    run = open_store(str(place))
    checkpoints = Checkpoints(run)
    files = [
        checkpoints.upload(Snapshot(pieces, {"rng": torch.tensor([worker])}), step, "a1", worker)
        for worker, pieces in enumerate((PIECES, {"model.text.weight:6:weight": torch.arange(6.0, 9.0)}))
    ]
    manifest = CheckpointManifest(
        step=step, attempt="a1", workers=2, zero_stage=1, precision="fp32", micro_batch=8, applied=step, scaler={},
        cursor=Cursor.at(step, PLAN, 16), metrics={"validation_loss": 1.0}, files=files,
    )  # fmt: skip
    checkpoints.publish(manifest)
    run.write("tokenizer.json", b"tokens")
    run.write("data.json", b"[]")
    return run


def read(run: Store, step: int = 4) -> dict[str, torch.Tensor]:
    checkpoints = Checkpoints(run)
    pieces, _ = checkpoints.pieces(
        checkpoints.manifest(step), [("model.text.weight", 0, 9), ("model.logit_scale", 0, 1)], 0
    )
    return pieces


def test_a_copy_is_complete_and_only_its_temperature_is_another(tmp_path: Path) -> None:
    source, target = run_with_checkpoint(tmp_path / "a"), open_store(str(tmp_path / "b"))
    fork(source, 4, target, shift=0.5)
    before, after = read(source), read(target)
    assert before.keys() == after.keys()
    for key, piece in before.items():
        shift = 0.5 if key.startswith("model.logit_scale") and not key.endswith("exp_avg") else 0.0
        assert torch.equal(after[key], piece + shift)
    assert Checkpoints(target).leftovers() == {}
    assert target.read("tokenizer.json") == b"tokens"
    manifest = Checkpoints(target).manifest(4)
    assert (manifest.cursor, manifest.metrics) == (Checkpoints(source).manifest(4).cursor, {})
    fork(source, 4, target, shift=99.0)  # made before: left as it is
    assert torch.equal(read(target)["model.logit_scale:0:weight"], torch.tensor([2.5]))


def test_what_is_missing_or_damaged_is_no_copy(tmp_path: Path) -> None:
    source, target = run_with_checkpoint(tmp_path / "a"), open_store(str(tmp_path / "b"))
    with pytest.raises(NotFoundError):
        fork(source, 5, target)
    path = next((tmp_path / "a").rglob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(CheckpointError, match="differs from the hash"):
        fork(source, 4, target)
    assert Checkpoints(target).steps() == []


def test_the_shift_is_the_factor_between_the_two_temperatures() -> None:
    cold, hot = (digits().model_copy(update={"objective": ObjectiveConfig(temperature=one)}) for one in (0.05, 0.1))
    assert scale_shift(cold, hot) == pytest.approx(-math.log(2))
    assert scale_shift(hot, hot) == 0.0
