"""``raylens checkpoints``: what it lists, what it finds damaged, what it deletes, and how it refuses."""

import re
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from raylens.config import RunConfig, dump_yaml, validated
from raylens.data import Plan
from raylens.data.order import FixedChunkOrder
from raylens.errors import CheckpointError, ConfigError, NotFoundError, RaylensError
from raylens.storage import Store, open_store
from raylens.train.checkpoint.cursor import Cursor
from raylens.train.checkpoint.fragments import WEIGHT, key_of
from raylens.train.checkpoint.snapshot import Snapshot
from raylens.train.checkpoint.store import CheckpointManifest, Checkpoints
from raylens.workloads.cli.checkpoints import app

PLAN = Plan((FixedChunkOrder(100, "a" * 64, 1, 4, 4, 100),), seed=1)
LOSSES = {2: 0.5, 4: 0.1, 6: 0.3, 8: 0.2}
MIB_OF_FLOATS = 1 << 18


def save(checkpoints: Checkpoints, step: int) -> None:
    """As two workers save: a part each, then the manifest."""
    attempt = f"try{step}"
    parts = [
        Snapshot({key_of("model.w", rank * MIB_OF_FLOATS, WEIGHT): torch.rand(MIB_OF_FLOATS)}, {}) for rank in range(2)
    ]
    files = [checkpoints.upload(part, step, attempt, rank) for rank, part in enumerate(parts)]
    checkpoints.publish(
        CheckpointManifest(
            step=step,
            attempt=attempt,
            workers=2,
            zero_stage=3,
            precision="fp32",
            micro_batch=4,
            applied=step,
            scaler={},
            cursor=Cursor.at(step, PLAN, 8),
            metrics={"validation_loss": LOSSES[step]},
            files=files,
        )
    )


@pytest.fixture
def run(tmp_path: Path) -> Store:
    """A run with four checkpoints, of which it keeps the best and the last, and a file of a broken attempt."""
    run = open_store(tmp_path / "runs" / "digits")
    tree = {
        "name": "digits",
        "global_batch": 8,
        "data": {"train": "data/train"},
        "evaluation": {"every_steps": 2, "pairs": "data/held-out"},
        "checkpoint": {"keep_last": 1, "keep_best": 1},
    }
    run.write("config.yaml", dump_yaml(validated(RunConfig, tree)).encode())
    for step in LOSSES:
        save(Checkpoints(run), step)
    run.write("checkpoints/step-00000007/gone/worker-00000.safetensors", b"half of a")
    return run


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "160"})


def printed(*arguments: object) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def refused(kind: type[RaylensError], *arguments: object) -> str:
    result = invoke(*arguments)
    assert result.exit_code != 0
    assert type(result.exception) is kind, result.exception
    assert "\n" not in str(result.exception)
    assert not result.stdout
    return str(result.exception)


def damage(run: Store, step: int, worker: int) -> str:
    """One bit of a worker's file is another one; its name."""
    path = f"step-{step:08d}/{Checkpoints(run).manifest(step).files[worker].path}"
    whole = run.read(f"checkpoints/{path}")
    run.write(f"checkpoints/{path}", whole[:-1] + bytes([whole[-1] ^ 1]))
    return path


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if line[0] == "│"]


def everything(run: Store) -> dict[str, bytes]:
    return {info.path: run.read(info.path) for info in run.list()}


def test_a_list_has_a_row_a_checkpoint_and_says_which_stay(run: Store) -> None:
    found = rows(printed("list", run.uri))
    assert [row[:6] for row in found[:4]] == [[str(step), str(8 * step), "2", "3", "2.0", "2"] for step in LOSSES]
    assert [row[6] for row in found[:4]] == ["no", "yes", "no", "yes"]
    assert found[0][7] == "validation_loss 0.5"
    assert found[4][5:] == ["1", "no", "of attempts that never became a checkpoint"]
    assert len(found) == 5


def test_whole_checkpoints_are_verified_all_or_by_step(run: Store) -> None:
    lines = printed("verify", run.uri).splitlines()
    assert lines == [f"step {step}: 2 files, 2.0 MiB, all as they were saved" for step in LOSSES]
    assert printed("verify", run.uri, "--step", 6, "--step", 2).splitlines() == [lines[2], lines[0]]


def test_every_damage_is_found_and_the_rest_verified_all_the_same(run: Store) -> None:
    """A bit, a file and a manifest: a line each, and exit 1; what is whole is said to be."""
    flipped, lost = damage(run, 2, worker=1), Checkpoints(run).manifest(4).files[0].path
    run.delete(f"checkpoints/step-00000004/{lost}")
    text = run.read_text("checkpoints/step-00000006/checkpoint.json")
    run.write("checkpoints/step-00000006/checkpoint.json", text[: len(text) // 2].encode())
    result = invoke("verify", run.uri)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert result.stdout.splitlines() == ["step 8: 2 files, 2.0 MiB, all as they were saved"]
    first, second, third = result.stderr.splitlines()
    assert re.match(rf"{flipped.partition('/')[2]} of step 2 in .* differs from the hash it was saved with: ", first)
    assert lost in second
    assert re.match(r"checkpoint\.json of step 6 in .* is damaged .*: delete this step's folder", third)
    assert invoke("verify", run.uri, "--step", 8).exit_code == 0


def test_a_file_that_is_too_short_is_found(run: Store) -> None:
    path = f"checkpoints/step-00000008/{Checkpoints(run).manifest(8).files[0].path}"
    run.write(path, run.read(path)[:-1])
    assert invoke("verify", run.uri, "--step", 8).exit_code == 1


def test_pruning_keeps_what_the_list_says_and_what_it_keeps_stays_whole(run: Store) -> None:
    before = everything(run)
    assert printed("prune", run.uri, "--dry-run") == "would delete 2 checkpoints (2, 6), 1 leftover files\n"
    assert everything(run) == before
    assert printed("prune", run.uri) == "deleted 2 checkpoints (2, 6), 1 leftover files\n"
    kept = {path: data for path, data in before.items() if not re.search(r"step-0000000[267]", path)}
    assert everything(run) == kept
    assert len(printed("verify", run.uri).splitlines()) == 2
    assert [row[0] for row in rows(printed("list", run.uri))] == ["4", "8"]
    assert printed("prune", run.uri) == "deleted 0 checkpoints (none), 0 leftover files\n"


def test_other_rules_may_be_given(run: Store) -> None:
    rules = ("--set", "keep_last=2", "--set", "keep_best=0", "--set", "keep_every=4")
    assert printed("prune", run.uri, *rules) == "deleted 1 checkpoints (2), 1 leftover files\n"
    assert Checkpoints(run).steps() == [4, 6, 8]


def test_files_of_an_attempt_that_may_be_under_way_are_left(run: Store) -> None:
    run.write("checkpoints/step-00000009/now/worker-00000.safetensors", b"half of a")
    assert printed("prune", run.uri, "--dry-run").endswith("1 leftover files\n")
    printed("prune", run.uri)
    assert run.exists("checkpoints/step-00000009/now/worker-00000.safetensors")


def test_a_damaged_manifest_stops_list_and_prune_before_anything_is_deleted(run: Store) -> None:
    """What it would have said of its metric could have been what keeps it, or another one."""
    run.write("checkpoints/step-00000006/checkpoint.json", b"{}")
    before = everything(run)
    for command in ("list", "prune"):
        assert "checkpoint.json of step 6" in refused(CheckpointError, command, run.uri)
    assert everything(run) == before


@pytest.mark.parametrize("command", ["list", "verify", "prune"])
def test_places_that_are_no_run_are_refused(tmp_path: Path, command: str) -> None:
    assert "config.yaml" in refused(NotFoundError, command, tmp_path / "nowhere")
    assert "scheme 'ftp' is not known" in refused(ConfigError, command, "ftp://host/runs/digits")
    assert "bucket 'x' is not a bucket name" in refused(ConfigError, command, "s3://x")
    open_store(tmp_path).write("config.yaml", b"checkpoint: {keep_lost: 1}\n")
    assert "unknown key 'keep_lost' (did you mean 'keep_last'?)" in refused(ConfigError, command, tmp_path)
    open_store(tmp_path).write("config.yaml", b"checkpoint: 7\n")
    assert "checkpoint = 7" in refused(ConfigError, command, tmp_path)


def test_rules_and_steps_that_cannot_be_are_refused(run: Store) -> None:
    before = everything(run)
    assert "no checkpoint at step 3, 5; there are 2, 4, 6, 8" in refused(
        NotFoundError, "verify", run.uri, "--step", 5, "--step", 3, "--step", 2
    )
    assert "unknown key 'keep_lost'" in refused(ConfigError, "prune", run.uri, "--set", "keep_lost=1")
    assert "write it as key=value" in refused(ConfigError, "prune", run.uri, "--set", "keep_last")
    assert "keep_last = 0" in refused(ConfigError, "prune", run.uri, "--set", "keep_last=0")
    assert "keep_last = 'all'" in refused(ConfigError, "prune", run.uri, "--set", "keep_last=all")
    assert everything(run) == before


def test_a_run_without_checkpoints_has_nothing_to_show(run: Store) -> None:
    for path in everything(run):
        if path.startswith("checkpoints/"):
            run.delete(path)
    assert rows(printed("list", run.uri)) == []
    assert printed("verify", run.uri) == ""
    assert printed("prune", run.uri) == "deleted 0 checkpoints (none), 0 leftover files\n"
    assert "there are none" in refused(NotFoundError, "verify", run.uri, "--step", 2)
