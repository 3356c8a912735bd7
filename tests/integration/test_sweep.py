"""Sweeps for real: killed and gone on with, the best trained again to the last bit, copies that copy."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from raylens.cluster import session
from raylens.config import RunConfig, dump_yaml, load_yaml, validated
from raylens.messages import quiet
from raylens.registry import Registry
from raylens.storage import open_store
from raylens.train import train
from raylens.train.runs.jsonl import EVALUATIONS, read_records
from raylens.train.runs.run_dir import RunFiles
from raylens.tune import SweepConfig, sweep
from raylens.tune.search.candidates import candidates
from raylens.tune.trials import SweepRecord, read_sweep
from raylens.workloads.quickstart.digits import pack_digits
from raylens.workloads.recipes.sweeps import SWEEPS
from tests.helpers.said import Said

RAYLENS = Path(sys.executable).with_name("raylens")
LIMIT = 420.0
LOSS = "validation_loss"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits, packed, and room for sweeps."""
    place = tmp_path_factory.mktemp("sweeps")
    pack_digits(open_store(str(place)) / "data")
    return place


def small(place: Path, name: str, space: dict[str, Any], steps: int = 12, **others: Any) -> SweepConfig:
    """A few steps of the digits, in which something is learned."""
    base = SWEEPS["digits"]()
    run = base.run.model_dump(mode="json")
    held_out = {"uri": str(place / "data" / "heldout")}
    run |= {
        "storage": str(place / "runs"),
        "registry": str(place / "registry"),
        "length": {"epochs": None, "samples_seen": steps * 128},
        "evaluation": {"every_steps": 3, "pairs": held_out, "most_pairs": 128},
    }
    run["optim"]["schedule"]["warmup_steps"] = 2
    run["data"] = {**run["data"], "train": [{"uri": str(place / "data" / "train")}]}
    tree = {"name": name, "storage": str(place / "sweeps"), "run": run, "space": space, "metric": LOSS, **others}
    return validated(SweepConfig, tree)


def record_of(config: SweepConfig) -> SweepRecord:
    return read_sweep(open_store(config.storage) / config.name)


class Command:
    """A sweep in a process of its own, with whatever it starts."""

    def __init__(self, *arguments: str, cwd: Path) -> None:
        self.log = cwd / f"log-{time.monotonic_ns()}.txt"
        with self.log.open("w") as log:
            command = [str(RAYLENS), "sweep", *arguments]
            self.process = subprocess.Popen(command, cwd=cwd, stdout=log, stderr=subprocess.STDOUT)
        self.family: set[psutil.Process] = set()

    def wait_for(self, condition: Any) -> None:
        began = time.monotonic()
        while not condition():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() - began < LIMIT, self.log.read_text()
            self.family |= set(psutil.Process(self.process.pid).children(recursive=True))
            time.sleep(0.5)

    def kill(self) -> None:
        """As a machine that is lost takes it."""
        self.process.kill()
        self.process.wait()
        # Ray's agents take a minute to notice; the next start must not find two clusters on two cores.
        for one in self.family:
            if one.is_running():
                one.kill()
        psutil.wait_procs(self.family, timeout=30)


def finished(config: SweepConfig) -> int:
    store = open_store(config.storage) / config.name
    return record_of(config).counts().get("finished", 0) if store.exists("sweep.json") else 0


@pytest.mark.slow
def test_a_killed_sweep_goes_on_and_its_best_is_trained_again_to_the_last_bit(place: Path) -> None:
    # Of four, one cannot be: a micro-batch of 128 in batches of 64.
    space = {"global_batch": [64, 128], "scale.micro_batch": [32, 128]}
    config = small(place, "killed", space, search={"kind": "grid"}, scheduler={"kind": "fifo"}, concurrent=2)
    (place / "killed.yaml").write_text(dump_yaml(config))
    first = Command("killed.yaml", cwd=place)
    first.wait_for(lambda: finished(config) > 0)
    first.kill()
    before = record_of(config)
    assert before.state == "running"
    uri = str(place / "sweeps" / "killed")
    second = subprocess.run(
        [str(RAYLENS), "sweep", "resume", uri], cwd=place, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert second.returncode == 0, second.stderr
    assert "continuing the sweep" in second.stderr
    assert "Traceback" not in second.stderr + second.stdout
    record = record_of(config)
    assert record.state == "finished"
    assert record.counts() == {"failed": 1, "finished": 3}
    broken = next(trial for trial in record.trials if trial.state == "failed")
    assert broken.values == {"global_batch": 64, "scale.micro_batch": 128}
    assert "scale.micro_batch = 128 does not divide a worker's batch, 64" in broken.note
    for trial in record.trials:
        if trial.state == "finished":
            assert [one.step for one in trial.curve] == list(range(3, trial.curve[-1].step + 1, 3))
            assert trial.curve[-1].samples == 12 * 128
    # What was finished before the kill was not trained again.
    for trial in before.trials:
        if trial.state == "finished":
            events = [event["event"] for event in RunFiles.read(open_store(uri) / "runs" / trial.run).events]
            assert events.count("started") == 1
    check_best(place, config, record)
    report = open_store(uri).read_text("report.html")
    assert all(trial.name in report for trial in record.trials)
    assert "<svg" in report


def check_best(place: Path, config: SweepConfig, record: SweepRecord) -> None:
    """The best of all, trained again from best.yaml, and promoted from where it is."""
    store = open_store(config.storage) / config.name
    losses = {trial.name: value for trial in record.trials if (value := trial.value(LOSS)) is not None}
    best = min(losses, key=losses.__getitem__)
    text = store.read_text("best.yaml")
    assert text.startswith(f"# {best} of sweep {config.name}: {LOSS} {losses[best]!r} at step ")
    run = validated(RunConfig, load_yaml(text, "best.yaml"))
    with session(num_cpus=4):
        result = train(run, say=quiet)
    again = read_records(open_store(result.run_uri), EVALUATIONS)[-1]
    assert again[LOSS] == losses[best]
    promoted = subprocess.run(
        [str(RAYLENS), "sweep", "promote", str(place / "sweeps" / config.name), "digits@staging"],
        cwd=place, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert promoted.returncode == 0, promoted.stderr
    version, encoder = Registry(str(place / "registry")).load("digits@staging")
    selection = version.lineage.selection
    assert selection is not None
    assert (selection.sweep, selection.trial) == (store.uri, best)
    assert (selection.metric, selection.goal, selection.value) == (LOSS, "min", losses[best])
    trained = Registry(run.registry_uri).load(str(result.version))[1]
    assert encoder.bundle.digest() == trained.bundle.digest()


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_population_based_training_copies_the_better_half(place: Path) -> None:
    # Two trials, one with a rate at which nothing is learned: at the first look it becomes a copy of the other.
    space = {"optim.peak_lr": [3e-3, 1e-9], "objective.temperature": {"log_uniform": [0.069, 0.071]}}
    pbt = {"kind": "pbt", "by": "steps", "first": 6, "interval": 3, "quantile": 0.5}
    config = small(place, "pbt", space, 30, scheduler=pbt, budget={"trials": 2}, concurrent=2, search={"seed": 2})
    begun = candidates(config, config.check(30))
    result = sweep(config, say=quiet)
    record = result.record
    worse = next(f"t{number:03d}" for number, one in enumerate(begun) if one["optim.peak_lr"] == 1e-9)
    copies = [(trial, copy) for trial in record.trials for copy in trial.copies]
    assert copies, record
    for trial, copy in copies:
        other = next(one for one in record.trials if one.name == copy.of)
        assert other.name != trial.name
        run = open_store(result.uri) / "runs" / trial.run
        # It went on from the other's state: the records up to there are the other's, and it was trained on from there.
        rows = read_records(run, EVALUATIONS)
        theirs = {
            row["step"]: row[LOSS] for row in read_records(open_store(result.uri) / "runs" / other.run, EVALUATIONS)
        }
        assert all(row[LOSS] == theirs[row["step"]] for row in rows if row["step"] <= copy.step)
        if trial.name == worse and copy is trial.copies[0]:
            assert trial.curve[copy.at].metrics[LOSS] < trial.curve[copy.at - 1].metrics[LOSS] - 0.1
        saved = load_yaml(run.read_text("config.yaml"), "config.yaml")
        assert saved["optim"]["peak_lr"] == trial.values["optim.peak_lr"]
        assert saved["objective"]["temperature"] == pytest.approx(trial.values["objective.temperature"])
    assert worse in {trial.name for trial, _ in copies}
    assert record.counts() == {"finished": 2}


@pytest.mark.usefixtures("cluster")
def test_a_budget_ends_a_sweep_and_what_was_trained_stays(place: Path) -> None:
    space = {"optim.peak_lr": {"log_uniform": [1e-4, 1e-2]}}
    config = small(
        place, "short", space, budget={"trials": 5, "samples": 3 * 128}, concurrent=1,
        search={"kind": "tpe", "warm_up": 2}, scheduler={"kind": "median", "by": "steps", "first": 3},
    )  # fmt: skip
    said = Said()
    result = sweep(config, say=said)
    assert (result.record.state, result.record.why) == ("stopped", "budget.samples = 384 is used up")
    assert 384 <= result.record.samples < 12 * 128
    assert result.best is not None
    assert open_store(result.uri).exists("best.yaml")
    again = sweep(config, say=said)
    assert said.texts[-1].startswith("nothing to do: the sweep stopped")
    assert again.record.trials == result.record.trials
