"""Cursor, run folder and metrics: what a resume depends on."""

from pathlib import Path

import pytest

from raylens.config import DataConfig, LengthConfig, RunConfig, apply_overrides, validated
from raylens.data import Plan
from raylens.data.order import FixedChunkOrder
from raylens.errors import CheckpointError, ConfigError, CursorError, TrainingError
from raylens.storage import open_store
from raylens.train.checkpoint.cursor import Cursor
from raylens.train.checkpoint.store import Checkpoints
from raylens.train.run.prepare import claim
from raylens.train.runs.jsonl import METRICS, JsonlWriter, read_metrics

PLAN = Plan((FixedChunkOrder(100, "a" * 64, 1, 4, 4, 100),), seed=1)


def test_cursor_counts_samples() -> None:
    cursor = Cursor.at(7, PLAN, 32)
    assert cursor.position == 224
    cursor.check(Cursor.at(9, PLAN, 32))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"manifests": ("b" * 64,)},
            "manifests: the checkpoint has aaaaaaaaaaaa..., this run has bbbbbbbbbbbb...: the shards",
        ),
        ({"global_batch": 64}, "global_batch: the checkpoint has 32, this run has 64"),
        ({"seed": 2}, "seed: the checkpoint has 1, this run has 2"),
        ({"plan_version": 9}, "orders samples differently"),
        ({"chunks_per_block": (5,)}, "chunks_per_block: the checkpoint has 4, this run has 5"),
        ({"shares": (3, 5)}, "shares: the checkpoint has 1, this run has [3, 5]"),
        ({"epoch_sizes": (96,)}, "epoch_sizes: the checkpoint has 100, this run has 96"),
    ],
)
def test_cursor_names_what_differs(change: dict[str, object], words: str) -> None:
    saved = Cursor.at(7, PLAN, 32)
    with pytest.raises(CursorError) as caught:
        saved.check(saved.model_copy(update=change))
    assert words in str(caught.value)


def config(**changes: object) -> RunConfig:
    base = RunConfig(name="r", global_batch=8, data=DataConfig(train="x"), length=LengthConfig(epochs=1))
    return validated(
        RunConfig, apply_overrides(base.model_dump(), [f"{key}={value}" for key, value in changes.items()])
    )


def test_a_run_keeps_its_settings(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    claim(store, config())
    claim(store, config())
    claim(store, config(**{"scale.workers": 4, "checkpoint.every_steps": 3, "log_every_steps": 1}))
    with pytest.raises(ConfigError) as caught:
        claim(store, config(**{"optim.peak_lr": 0.5, "seed": 3}))
    assert "seed was 0, is now 3; optim.peak_lr was 0.0005, is now 0.5" in str(caught.value)


def test_metrics_are_published_and_rewound(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    log = JsonlWriter(store, METRICS, 0, every_seconds=1000)
    for step in (1, 2, 3):
        log.add({"step": step, "loss": 1.0 / step})
    assert read_metrics(store) == []
    assert log.flush() == ""
    assert [record["step"] for record in read_metrics(store)] == [1, 2, 3]
    again = JsonlWriter(store, METRICS, 2)
    again.add({"step": 3, "loss": 9.0})
    assert again.flush() == ""
    assert [(record["step"], record["loss"]) for record in read_metrics(store)] == [(1, 1.0), (2, 0.5), (3, 9.0)]


@pytest.mark.parametrize("line", ["{", "3", '{"loss": 1}'])
def test_damaged_metrics_are_named(tmp_path: Path, line: str) -> None:
    store = open_store(tmp_path)
    store.write("metrics.jsonl", f'{{"step": 1}}\n{line}\n'.encode())
    with pytest.raises(TrainingError, match=r"metrics\.jsonl, line 2"):
        read_metrics(store)


def test_only_a_manifest_makes_a_checkpoint(tmp_path: Path) -> None:
    checkpoints = Checkpoints(open_store(tmp_path))
    assert checkpoints.newest() is None
    for path in ("step-00000007/half/state.pt", "step-x/checkpoint.json", "notes/checkpoint.json", "checkpoint.json"):
        checkpoints.store.write(path, b"{}")
    assert checkpoints.newest() is None
    checkpoints.store.write("step-00000009/checkpoint.json", b"{}")
    assert checkpoints.steps() == [9]
    with pytest.raises(CheckpointError, match=r"checkpoint\.json of step 9 .* is damaged"):
        checkpoints.newest()


def test_metrics_refuse_what_json_cannot_say(tmp_path: Path) -> None:
    log = JsonlWriter(open_store(tmp_path), METRICS, 0, every_seconds=0)
    with pytest.raises(ValueError, match="not JSON compliant"):
        log.add({"step": 1, "loss": float("nan")})
