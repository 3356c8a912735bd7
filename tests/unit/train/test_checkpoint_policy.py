"""When a run saves: beside training, whatever the store is like; and what is said where it is not as it should be."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from raylens.config import CheckpointConfig, DataConfig, LengthConfig, RunConfig, ScaleConfig
from raylens.errors import StorageError, UnreachableError
from raylens.evaluate.metrics import Metric
from raylens.storage import open_store
from raylens.train.checkpoint import policy
from raylens.train.checkpoint.policy import CheckpointPolicy, SaveRequest
from raylens.train.checkpoint.store import Checkpoints
from raylens.train.collective.coordinator import StepDecision
from raylens.train.loop import loop
from raylens.train.loop.batch import Batch
from raylens.train.loop.events import Checkpointed, RunEvent, Stopping, Warned
from raylens.train.loop.schedule import TrainingProgress
from raylens.train.loop.stats import StepStats, TowerStats
from tests.unit.train.test_checkpoint import Alone, manifest, save, snapshot
from tests.unit.train.test_loop import batches

STEPS = 30
CONFIG = RunConfig(
    name="saving",
    global_batch=8,
    data=DataConfig(train="unused"),
    length=LengthConfig(samples_seen=8 * STEPS),
    scale=ScaleConfig(workers=1),
    log_every_steps=1,
)


class Decisions(Alone):
    """The only worker, and what it is asked to do after which step."""

    def __init__(self, **asked: int) -> None:
        self.step, self.asked = 0, asked

    def decide(self, *, checkpoint_due: bool) -> StepDecision:
        self.step += 1
        return StepDecision(checkpoint_due, self.asked.get("leaving") == self.step, self.asked.get("stop") == self.step)


class Slow(Checkpoints):
    """Takes no file until it is told to, and says when it was asked to take one."""

    def __init__(self, path: Path) -> None:
        super().__init__(open_store(path))
        self.asked, self.may = threading.Event(), threading.Event()

    def upload(self, *args: Any) -> Any:
        self.asked.set()
        assert self.may.wait(60)
        return super().upload(*args)


class Engine:
    """Takes no time, but for what a test does in between."""

    def __init__(self, between: Callable[[int], None] = lambda _: None) -> None:
        self._between = between

    def train_step(self, batch: Batch, progress: TrainingProgress) -> StepStats:  # noqa: ARG002 (as the loop calls it)
        self._between(progress.step + 1)
        return StepStats(1.0, 14.0, 0.0)

    def tower_stats(self) -> TowerStats:
        return TowerStats()


def at(config: CheckpointConfig, checkpoints: Checkpoints, told: list[RunEvent], **asked: int) -> CheckpointPolicy:
    def state(step: int) -> SaveRequest:
        return SaveRequest(snapshot(), manifest(step), tuple)

    return CheckpointPolicy(config, STEPS, checkpoints, Decisions(**asked), state, told.append)


def train(one: CheckpointPolicy, between: Callable[[int], None] = lambda _: None) -> None:
    hooks = loop.Hooks(lambda _: None, one.due, one.save, lambda: one.stopping, lambda _: None)
    loop.run(CONFIG, Engine(between), batches(STEPS), hooks, rank=0, start=0, steps=STEPS)
    one.wait()


def calmly(one: CheckpointPolicy) -> None:
    """With steps that take longer than the store does."""

    def between(_: int) -> None:
        one.wait()

    train(one, between)


def warnings(told: list[RunEvent]) -> list[str]:
    return [event.text for event in told if isinstance(event, Warned)]


def saved(told: list[RunEvent]) -> list[int]:
    return [event.step for event in told if isinstance(event, Checkpointed)]


def test_training_goes_on_while_a_store_is_slow(tmp_path: Path) -> None:
    checkpoints, told = Slow(tmp_path), list[RunEvent]()
    one = at(CheckpointConfig(every_steps=5, keep_last=9), checkpoints, told)

    def between(step: int) -> None:
        if step == 18:  # long after step 5's was begun, and nobody waited for it
            assert checkpoints.asked.wait(60)
            assert saved(told) == []
            (text,) = warnings(told)
            assert text.startswith("no checkpoint after step 10: the one of step 5 is")
            assert "checkpoint.every_steps (now 5) or every_minutes (now None)" in text
            checkpoints.may.set()
        if 18 < step < 25:
            time.sleep(0.05)  # a few looks, until it is there

    train(one, between)
    assert saved(told)[0] == 5
    assert saved(told)[-1] == STEPS
    assert checkpoints.steps() == saved(told)
    assert not set(saved(told)) & {10, 15}


def test_a_second_row_of_skips_is_said_again(tmp_path: Path) -> None:
    checkpoints, told = Slow(tmp_path), list[RunEvent]()
    one = at(CheckpointConfig(every_steps=2), checkpoints, told)

    def between(step: int) -> None:
        if step == 9:
            checkpoints.may.set()
            one.wait()
            checkpoints.may.clear()
        if step == STEPS:
            checkpoints.may.set()

    train(one, between)
    assert [text.split(":")[0] for text in warnings(told)] == [
        "no checkpoint after step 4",
        "no checkpoint after step 12",
    ]
    assert saved(told) == [2, 10, STEPS]


@pytest.mark.parametrize("asked", [{"leaving": 7}, {"stop": 7}])
def test_what_cannot_be_left_out_waits_for_the_one_before(tmp_path: Path, asked: dict[str, int]) -> None:
    checkpoints, told = Slow(tmp_path), list[RunEvent]()
    one = at(CheckpointConfig(every_steps=5), checkpoints, told, **asked)

    def between(step: int) -> None:
        if step == 7:
            threading.Timer(0.1, checkpoints.may.set).start()
        if step > 7:
            one.wait()

    train(one, between)
    assert saved(told)[:2] == [5, 7]
    assert warnings(told) == []
    assert [event.step for event in told if isinstance(event, Stopping)] == ([7] if "stop" in asked else [])


def ticking(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """A clock that goes on by so much at each look."""
    ticks: Iterator[float] = itertools.count(0.0, seconds)

    class Clock:
        monotonic = staticmethod(lambda: next(ticks))
        sleep = staticmethod(time.sleep)

    monkeypatch.setattr(policy, "time", Clock)


def test_minutes_count_from_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticking(monkeypatch, 20.0)
    told = list[RunEvent]()
    one = at(CheckpointConfig(every_steps=None, every_minutes=2), Checkpoints(open_store(tmp_path)), told)
    due = []
    for step in range(1, STEPS):
        if one.due(step):
            due.append(step)
            one.save(step)
            one.wait()
    # A look each step, and one more when it is begun.
    assert due == [6, 12, 18, 24]
    assert saved(told) == due


def test_with_both_whichever_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticking(monkeypatch, 20.0)
    config = CheckpointConfig(every_steps=4, every_minutes=2)
    one = at(config, Checkpoints(open_store(tmp_path)), [])
    due = []
    for step in range(1, 13):
        if one.due(step):
            due.append(step)
            one.save(step)
            one.wait()
    assert due == [4, 8, 12]


def test_minutes_that_are_over_while_the_store_is_slow_are_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticking(monkeypatch, 20.0)
    checkpoints, told = Slow(tmp_path), list[RunEvent]()
    one = at(CheckpointConfig(every_steps=None, every_minutes=2), checkpoints, told)
    due = []
    for step in range(1, 21):
        if step == 16:
            checkpoints.may.set()
            one.wait()
        if one.due(step):
            due.append(step)
            one.save(step)
    assert due[:2] == [6, 16]
    assert [text.split(":")[0] for text in warnings(told)] == ["no checkpoint after step 12"]


def test_a_checkpoint_counts_whose_predecessors_cannot_be_deleted(tmp_path: Path) -> None:
    checkpoints, told = Checkpoints(open_store(tmp_path)), list[RunEvent]()
    save(checkpoints, 1)
    checkpoints.store.write("step-00000001/checkpoint.json", b"{")
    calmly(at(CheckpointConfig(every_steps=10, keep_last=1), checkpoints, told))
    assert saved(told)[-1] == STEPS
    (text,) = warnings(told)
    assert text.startswith("the checkpoint at step 10 is saved, but")
    assert "checkpoint.json of step 1 in" in text
    assert "raylens checkpoints prune" in text
    assert checkpoints.manifest(STEPS).step == STEPS


def test_a_bucket_that_lets_nothing_be_deleted_does_not_end_a_run(tmp_path: Path) -> None:
    class Undeletable(Checkpoints):
        def delete(self, step: int) -> None:
            raise UnreachableError(f"the store refuses to delete step {step}: allow s3:DeleteObject")

    checkpoints, told = Undeletable(open_store(tmp_path)), list[RunEvent]()
    calmly(at(CheckpointConfig(every_steps=10, keep_last=1), checkpoints, told))
    assert checkpoints.steps() == saved(told)
    assert saved(told)[-1] == STEPS
    assert [text for text in warnings(told) if "allow s3:DeleteObject" in text] == warnings(told)
    assert len(warnings(told)) == 1


def test_a_store_that_takes_nothing_is_told_once_and_ends_the_run_at_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(Checkpoints):
        def upload(self, *_: object) -> Any:
            raise StorageError("no space left")

    monkeypatch.setattr(policy, "PATIENCE_SECONDS", 0.0)
    told = list[RunEvent]()
    one = at(CheckpointConfig(every_steps=10), Full(open_store(tmp_path)), told)
    with pytest.raises(StorageError, match=r"step 30 could not be saved for 0 s: no space left"):
        calmly(one)
    assert "step 10 could not be saved (no space left)" in warnings(told)[0]
    assert ["no space left" in text for text in warnings(told)] == [True, False, False]


def test_metrics_are_waited_for_beside_training(tmp_path: Path) -> None:
    known, told = threading.Event(), list[RunEvent]()

    def metrics() -> list[Metric]:
        assert known.wait(60)
        return [Metric("validation_loss", 0.5, "min")]

    checkpoints = Checkpoints(open_store(tmp_path))
    one = CheckpointPolicy(
        CheckpointConfig(every_steps=5, keep_last=9),
        STEPS,
        checkpoints,
        Decisions(),
        lambda step: SaveRequest(snapshot(), manifest(step), metrics),
        told.append,
    )
    train(one, lambda step: known.set() if step == 12 else None)
    assert saved(told)[0] == 5
    assert checkpoints.manifest(5).metric("validation_loss") == Metric("validation_loss", 0.5, "min")
    assert 10 not in saved(told)
