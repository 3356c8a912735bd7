"""From a run's events to Ray Tune's results, and from those to a sweep's record; no Ray runs."""

import pickle
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest

from raylens.capacity import Node
from raylens.config import validated
from raylens.errors import ConfigError, TrainingError
from raylens.evaluate.metrics import Metric
from raylens.placement import Group, GroupSize, Placement, node_labels
from raylens.storage import Store, open_store
from raylens.train.loop.events import Checkpointed, Evaluated, Started
from raylens.tune import SweepConfig
from raylens.tune.checkpoint_ref import CheckpointRef
from raylens.tune.monitor import (
    BudgetStopper,
    SweepMonitor,
    TrialCallback,
    set_monitor,
)
from raylens.tune.paths import STOP, SWEEP_SETTINGS, parent_of, read_config
from raylens.tune.reporter import Reporter
from raylens.tune.sweep import concurrency
from raylens.tune.trial import trial_config
from raylens.tune.trials import SweepRecord, read_sweep
from raylens.workloads.recipes.sweeps import SWEEPS
from tests.unit.train.test_fork import run_with_checkpoint

LOSS = "validation_loss"


def loss_of(value: float) -> Metric:
    return Metric(LOSS, value, "min")


def sweep(**others: Any) -> SweepConfig:
    tree = SWEEPS["digits"]().model_dump(mode="json") | {"metric": LOSS, **others}
    return validated(SweepConfig, tree)


def reporter(tmp_path: Path, config: SweepConfig, copied: CheckpointRef | None = None) -> tuple[Reporter, Any, Store]:
    results: SimpleQueue[Any] = SimpleQueue()
    folder = open_store(str(tmp_path / "run"))
    if copied is not None:
        copied.write_origin(folder)
    return Reporter(config, config.run, folder, results), results, folder


def drain(results: "SimpleQueue[Any]") -> list[dict[str, Any]]:
    found = []
    while not results.empty():
        found.append(results.get())
    return found


def test_each_evaluation_but_the_last_is_a_result_at_once(tmp_path: Path) -> None:
    events, results, folder = reporter(tmp_path, sweep())
    accuracy = Metric("zero_shot_digits", 0.5, "max")
    events.on_event(Started(0, 30, 1, 8, 1))
    for step in (10, 20, 20, 30):
        events.on_event(Evaluated(step, (loss_of(1.0 * step), accuracy), 0.1))
    events.on_event(Evaluated(25, (accuracy,), 0.1))  # the loss was no number
    assert [(one["steps"], one["samples"], one[LOSS]) for one in drain(results)] == [(10, 1280, 10.0), (20, 2560, 20.0)]
    folder.write("evaluations.jsonl", b'{"step": 20, "validation_loss": 2.0}\n{"step": 30, "validation_loss": 3.5}\n')
    end = events.end(30)
    assert (end["steps"], end[LOSS], end["of_steps"], end["run"]) == (30, 3.5, 30, "digits")
    folder.write("evaluations.jsonl", b'{"step": 30, "zero_shot_digits": 0.1}\n')
    with pytest.raises(TrainingError, match=r"validation_loss was .* at the last evaluation"):
        events.end(30)


def test_a_last_record_that_a_kill_took_is_read_from_the_last_checkpoint(tmp_path: Path) -> None:
    events, _, _ = reporter(tmp_path, sweep())
    run = run_with_checkpoint(tmp_path / "run", step=30)  # its metrics: a validation loss of 1
    run.write("evaluations.jsonl", b'{"step": 20, "validation_loss": 2.0}\n')
    end = events.end(30)
    assert (end["steps"], end[LOSS], end["of_steps"], end["saved"]) == (30, 1.0, 30, 30)


def test_where_trials_are_copied_a_result_waits_for_its_checkpoint(tmp_path: Path) -> None:
    copied = CheckpointRef("t001", "other", 10, 1280, {"a": 1})
    events, results, _ = reporter(tmp_path, sweep(scheduler={"kind": "pbt"}), copied)
    events.on_event(Started(10, 40, 1, 8, 1))
    events.on_event(Evaluated(20, (loss_of(2.0),), 0.1))
    assert drain(results) == []
    events.on_event(Checkpointed(20))
    events.on_event(Checkpointed(30))
    events.on_event(Evaluated(30, (loss_of(3.0),), 0.1))
    found = drain(results)
    assert [(row["steps"], row["saved"]) for row in found] == [(20, 20), (30, 30)]
    # A step without a checkpoint is reported when the next is heard of, with the newest that there is.
    events.on_event(Started(10, 90, 1, 8, 1))
    events.on_event(Evaluated(40, (loss_of(3.0),), 0.1))
    assert drain(results) == []
    events.on_event(Evaluated(50, (loss_of(3.0),), 0.1))
    assert [(one["steps"], one["saved"]) for one in drain(results)] == [(40, 30)]
    assert found[0]["copied_of"] == "t001"
    assert (found[0]["copied_step"], found[0]["copied_samples"]) == (10, 1280)


def test_a_pointer_is_read_as_it_was_written(tmp_path: Path) -> None:
    ref = CheckpointRef("t001", "run", 10, 1280, {"optim.peak_lr": 1e-3, "x": [1, None]})
    CheckpointRef.write(ref, tmp_path)
    assert CheckpointRef.read(tmp_path) == ref
    CheckpointRef.write(None, tmp_path)
    assert CheckpointRef.read(tmp_path) is None
    assert ref.fork_digest({"a": 1}) == ref.fork_digest({"a": 1}) != ref.fork_digest({"a": 2})


def fake(number: int, status: str = "RUNNING", **values: Any) -> Any:
    """What Ray Tune calls a trial, as far as it is looked at."""

    class Trial(SimpleNamespace):
        def __str__(self) -> str:
            return f"t{number:03d}"

    config = {"trial": {"number": number, "repeat": 0, "values": values}}
    return Trial(config=config, status=status, get_pickled_error=lambda: None, get_error=lambda: "a\nlast line\n")


def result(step: int, loss: float, seconds: float) -> dict[str, Any]:
    of = {"steps": step, "samples": 128 * step, "of_steps": 30, "run": "r", "time_since_restore": seconds}
    return {**of, LOSS: loss}


def test_the_record_has_what_happened_and_is_written(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    told: list[SweepRecord] = []
    monitor = SweepMonitor(store, sweep(), SweepRecord(seconds=100.0), told.append)
    first, second, third = fake(0, lr=1), fake(1, lr=2), fake(2, "PENDING", lr=3)
    set_monitor(monitor)
    listens = pickle.loads(pickle.dumps(TrialCallback()))
    for trial in (first, second):
        listens.on_trial_start(iteration=0, trials=[], trial=trial)
    for step, loss in ((10, 3.0), (20, 2.0), (30, 1.0)):
        listens.on_trial_result(iteration=0, trials=[], trial=first, result=result(step, loss, step / 2))
    listens.on_trial_complete(iteration=0, trials=[], trial=first)
    listens.on_trial_result(iteration=0, trials=[], trial=second, result=result(10, 4.0, 5.0))
    listens.on_trial_complete(iteration=0, trials=[], trial=second)
    listens.on_step_end(iteration=0, trials=[third])
    broken = fake(3)
    listens.on_trial_error(iteration=0, trials=[], trial=broken)
    monitor.write()
    record = read_sweep(store)
    assert [trial.state for trial in record.trials] == ["finished", "stopped", "waiting", "failed"]
    assert [trial.note for trial in record.trials] == ["", "by asha", "", "last line"]
    assert record.trials[0].seconds == 15.0
    assert record.seconds >= 100.0
    assert told[-1].trials == record.trials
    # A trial that begins again adds to the time that it had.
    again = SweepMonitor(store, sweep(), record, told.append)
    again.on_trial_start(second)
    again.on_result(second, result(20, 3.0, 7.0))
    assert again.record.trials[1].seconds == 12.0


def test_a_request_ends_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raylens.tune.monitor.CHECK_SECONDS", 0.0)
    store = open_store(str(tmp_path))
    monitor = SweepMonitor(store, sweep(), SweepRecord(), lambda _: None)
    set_monitor(monitor)
    ends = pickle.loads(pickle.dumps(BudgetStopper()))
    monitor.on_step([])
    assert not ends.stop_all()
    assert not ends("id", {})
    store.write(STOP, b"")
    monitor.on_step([])
    assert ends.stop_all()
    assert monitor.why_end == "stopped on request"


def test_settings_are_claimed_once_and_only_what_changes_nothing_may_differ(tmp_path: Path) -> None:
    store, config = open_store(str(tmp_path)), sweep()
    SWEEP_SETTINGS.claim(store, config)
    SWEEP_SETTINGS.claim(store, sweep(budget={"trials": 24, "hours": 1.0}, retries=3, concurrent=2))
    assert read_config(store) == config
    with pytest.raises(ConfigError, match=r"budget\.trials was 24, is now 25"):
        SWEEP_SETTINGS.claim(store, sweep(budget={"trials": 25}))
    with pytest.raises(ConfigError, match=r"other settings: repeats was 1, is now 2"):
        SWEEP_SETTINGS.claim(store, sweep(repeats=2))


def test_a_trial_is_the_run_with_its_values_and_the_same_seed(tmp_path: Path) -> None:
    store, config = open_store(str(tmp_path)), sweep()
    values = {"optim.peak_lr": 0.01, "objective.temperature": 0.1}
    first, second = (
        trial_config(store, config, f"digits-t000r{repeat}", {"values": values, "repeat": repeat}) for repeat in (0, 1)
    )
    assert (first.seed, second.seed) == (config.run.seed, config.run.seed + 1)
    assert (first.optim.peak_lr, first.objective.temperature) == (0.01, 0.1)
    assert first.optim.schedule == config.run.optim.schedule
    assert first.storage == str(tmp_path / "runs")
    assert first.data == config.run.data
    pbt = trial_config(store, sweep(scheduler={"kind": "pbt"}), "x", {"values": {}, "repeat": 0})
    assert pbt.checkpoint.every_steps == pbt.checkpoint.keep_every == pbt.evaluation.every_steps


@pytest.mark.parametrize(
    ("workers", "gpus", "have", "trials"),
    [(1, 0, {"CPU": 4.0}, 2), (2, 0, {"CPU": 5.0}, 1), (2, 0, {"CPU": 2.0}, 1), (4, 1, {"CPU": 99.0, "GPU": 8.0}, 2)],
)
def test_so_many_trials_run_at_a_time_as_there_is_room_for(
    workers: int, gpus: int, have: dict[str, float], trials: int
) -> None:
    run = sweep().run
    resources = run.resources.model_copy(update={"workers": workers, "gpus_per_worker": gpus})
    changed = run.model_copy(update={"resources": resources})
    assert concurrency(changed, [Node("one", have)], Placement()) == trials


def test_trials_share_the_nodes_of_each_group() -> None:
    run = sweep().run
    groups: dict[Group, GroupSize] = {"decode": GroupSize(2, 4), "train": GroupSize(3, 8, 4)}
    nodes = [
        Node(name, {"CPU": size.cpus, "GPU": size.gpus}, node_labels(name, groups), size.nodes)
        for name, size in groups.items()
    ]
    placement = Placement.read([node_labels("head", groups)])
    for workers, cpus, gpus, trials in ((2, 1, 1, 6), (2, 2, 0, 6), (1, 1, 0, 8), (8, 1, 1, 1), (4, 2, 1, 3)):
        resources = run.resources.model_copy(
            update={"workers": workers, "cpus_per_worker": cpus, "gpus_per_worker": gpus}
        )
        assert concurrency(run.model_copy(update={"resources": resources}), nodes, placement) == trials


def test_the_storage_of_a_sweep_is_read_from_its_folder() -> None:
    assert parent_of("sweeps/a", "a") == "sweeps"
    assert parent_of("a/", "a") == "."
    assert parent_of("s3://b/x/a?endpoint_override=http://h:1", "a") == "s3://b/x?endpoint_override=http://h:1"
    with pytest.raises(ConfigError, match="rename the folder"):
        parent_of("sweeps/moved", "a")
