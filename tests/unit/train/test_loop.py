"""The loop with a real model and plain torch as its engine: no Ray, no DeepSpeed."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

from raylens.config import (
    DataConfig,
    LengthConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    ScaleConfig,
    ScheduleConfig,
    TextTransformerConfig,
    VisionTransformerConfig,
)
from raylens.data.plan import step_hashes
from raylens.errors import CursorError, TrainingError
from raylens.models import DualEncoder
from raylens.objectives import contrastive_loss
from raylens.train.engine.optimizer import build_optimizer, set_learning_rates
from raylens.train.loop import loop, metrics
from raylens.train.loop.batch import Batch
from raylens.train.loop.data_wait import DataWait
from raylens.train.loop.loop import Hooks, run
from raylens.train.loop.metrics import StepMetrics
from raylens.train.loop.schedule import TrainingProgress
from raylens.train.loop.stats import StepStats, TowerStats

CONFIG = RunConfig(
    name="loop",
    global_batch=8,
    data=DataConfig(train="unused"),
    model=ModelConfig(
        embed_dim=8,
        image=VisionTransformerConfig(size=8, patch=4, width=16, layers=1, heads=2),
        text=TextTransformerConfig(context=6, vocab=600, width=16, layers=1, heads=2),
    ),
    optim=OptimConfig(peak_lr=5e-3, schedule=ScheduleConfig(warmup_steps=2), weight_decay=0.0),
    length=LengthConfig(samples_seen=240),
    scale=ScaleConfig(workers=1),
    log_every_steps=5,
)


@dataclass
class TorchEngine:
    """One process, one device."""

    model: DualEncoder = field(
        default_factory=lambda: DualEncoder(CONFIG.model, end_id=1, mean=(0.5,) * 3, std=(0.5,) * 3)
    )

    def __post_init__(self) -> None:
        self.optimizer = build_optimizer(self.model, CONFIG.optim)

    def train_step(self, batch: Batch, progress: TrainingProgress) -> StepStats:
        set_learning_rates(self.optimizer, CONFIG.optim, progress)
        image_BD, text_BD, log_scale, _ = self.model(torch.from_numpy(batch.image_BSSC), torch.from_numpy(batch.ids_BT))
        loss = contrastive_loss(image_BD, text_BD, log_scale)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return StepStats(loss.item(), log_scale.exp().item(), 0.0)

    def tower_stats(self) -> TowerStats:
        return TowerStats()


@dataclass
class Heard:
    records: list[StepMetrics] = field(default_factory=list)
    saved: list[int] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    stop_after: int = 0
    save_every: int = 10

    def hashes(self) -> list[str]:
        return [word for metrics in self.records for word in metrics.sample_hashes]

    def hooks(self) -> Hooks:
        return Hooks(
            log=self.records.append,
            due=lambda step: step % self.save_every == 0,
            save=self.saved.append,
            stopping=lambda: bool(self.stop_after) and self.saved[-1:] == [self.stop_after],
            warn=self.warnings.append,
        )


def batches(steps: int, start: int = 0) -> Iterator[Batch]:
    """The same eight pairs again and again: a model that learns anything learns them."""
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)
    ids = np.zeros((8, 6), dtype=np.int32)
    ids[:, 1:4] = draw.integers(2, 300, (8, 3))
    ids[:, 4] = 1
    for step in range(start, steps):
        place = np.arange(step * 8, step * 8 + 8)
        yield Batch(
            images,
            ids,
            place,
            place % 40,
            place // 40,
            substituted=1,
            truncated=2,
            read_seconds=0.25,
            decode_seconds=0.5,
        )


def test_it_stops_where_it_is_asked_to_with_its_state_saved() -> None:
    heard = Heard(stop_after=10)
    assert run(CONFIG, TorchEngine(), batches(24), heard.hooks(), rank=0, start=0, steps=24) == 10
    assert heard.saved == [10]


def test_it_learns_logs_and_saves_when_due() -> None:
    torch.manual_seed(0)
    heard = Heard()
    run(CONFIG, TorchEngine(), batches(24), heard.hooks(), rank=0, start=0, steps=24)
    assert [record.step for record in heard.records] == [5, 10, 15, 20, 24]
    assert heard.saved == [10, 20, 24]
    assert heard.records[-1].loss < heard.records[0].loss / 2
    assert heard.records[-1].samples_seen == 192
    assert heard.records[-1].substituted == 24
    assert heard.records[-1].truncated == 48
    assert heard.hashes() == [
        f"{int(step_hashes(np.arange(8) + (step % 5) * 8, np.full(8, step // 5), 1)[0]):016x}" for step in range(24)
    ]
    assert all(record.data_cores > 0 for record in heard.records)


def test_the_wait_for_the_first_batch_is_told_apart() -> None:
    def late() -> Iterator[Batch]:
        time.sleep(0.3)
        yield from batches(10)

    heard = Heard()
    run(CONFIG, TorchEngine(), late(), heard.hooks(), rank=0, start=0, steps=10)
    first, second = heard.records
    assert first.first_batch_seconds == pytest.approx(0.3, abs=0.1)
    assert second.first_batch_seconds is None
    assert first.data_wait < 0.5


def test_what_training_waits_for_is_told_and_no_part_of_its_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    progress = [100.0]

    class Clock:
        time = monotonic = staticmethod(lambda: progress[0])

    for module in (loop, metrics):
        monkeypatch.setattr(module, "time", Clock)

    class OneSecond(TorchEngine):
        def train_step(self, batch: Batch, now_: TrainingProgress) -> StepStats:
            progress[0] += 1.0
            return super().train_step(batch, now_)

    def evaluate(step: int, saving: bool) -> float:
        assert saving == (step in (10, 20))
        progress[0] += 3.0 if step == 10 else 0.0
        return 3.0 if step == 10 else 0.0

    def save(step: int) -> None:
        progress[0] += 7.0

    heard = Heard()
    run(
        CONFIG,
        OneSecond(),
        batches(20),
        replace(heard.hooks(), save=save, evaluate=evaluate),
        rank=0,
        start=0,
        steps=20,
    )
    assert [(one.step, one.paused_seconds) for one in heard.records] == [(5, 0.0), (10, 0.0), (15, 10.0), (20, 0.0)]
    assert [one.samples_per_second for one in heard.records] == pytest.approx([8.0] * 4)


def test_it_goes_on_where_it_is_told() -> None:
    heard = Heard()
    run(CONFIG, TorchEngine(), batches(12, start=7), heard.hooks(), rank=0, start=7, steps=12)
    assert [record.step for record in heard.records] == [10, 12]
    assert [len(record.sample_hashes) for record in heard.records] == [3, 2]
    assert heard.saved == [10, 12]


def test_what_is_told_of_each_step_has_no_hole_at_a_checkpoint() -> None:
    heard = Heard(save_every=7)
    run(CONFIG, TorchEngine(), batches(14), heard.hooks(), rank=0, start=0, steps=14)
    assert [record.step for record in heard.records] == [5, 7, 10, 14]
    assert [len(record.sample_hashes) for record in heard.records] == [5, 2, 3, 4]


@pytest.mark.parametrize(
    ("made_at", "read", "bound", "share"),
    [
        (3.0, 9.0, "storage", 0.4),  # asked at 1, made at 3, came at 3
        (3.0, 0.1, "decode", 0.4),
        (0.5, 9.0, "network", 0.4),  # made before it was asked for
        (1.5, 9.0, "network", 0.4),
        (99.0, 9.0, "storage", 0.4),  # another machine's clock
    ],
)
def test_the_verdict_names_the_bottleneck(made_at: float, read: float, bound: str, share: float) -> None:
    waiting = DataWait.for_batch(asked=1.0, came=3.0, made_at=made_at) + DataWait(5.0, reading=read, decoding=1.0)
    assert waiting.bound == bound
    assert waiting.share == pytest.approx(share)
    assert waiting.data_cores == pytest.approx((read + 1.0) / 5.0)


def test_without_waiting_the_device_is_the_bottleneck() -> None:
    assert (DataWait.for_batch(1.0, 1.001, 0.0) + DataWait(seconds=1.0, reading=9.0)).bound == "device"
    assert DataWait().share == DataWait().data_cores == 0.0


@pytest.mark.parametrize("shift", [-8, 8, 1])
def test_a_batch_out_of_place_stops_it(shift: int) -> None:
    wrong = [replace(batch, position_B=batch.position_B + shift) for batch in batches(3)]
    with pytest.raises(CursorError, match=f"step 1, worker 0: expected positions 0 to 7 .* got {shift} to"):
        run(CONFIG, TorchEngine(), wrong, Heard().hooks(), rank=0, start=0, steps=3)


def test_a_short_batch_stops_it() -> None:
    (batch,) = batches(1)
    with pytest.raises(CursorError, match="5 samples"):
        run(
            CONFIG,
            TorchEngine(),
            [replace(batch, position_B=batch.position_B[:5])],
            Heard().hooks(),
            rank=0,
            start=0,
            steps=1,
        )


def test_data_that_ends_early_is_an_error() -> None:
    with pytest.raises(TrainingError, match="ended at step 5 of 9"):
        run(CONFIG, TorchEngine(), batches(5), Heard().hooks(), rank=0, start=0, steps=9)


class Skipping(TorchEngine):
    """Cannot take some steps."""

    bad: tuple[int, ...] = ()
    step = 0

    def train_step(self, batch: Batch, progress: TrainingProgress) -> StepStats:
        self.step += 1
        if self.step in self.bad:
            return StepStats(float("nan"), 14.0, float("inf"), skipped=True)
        return super().train_step(batch, progress)


def test_steps_that_cannot_be_taken_are_counted() -> None:
    heard, engine = Heard(), Skipping()
    engine.bad = (2, 3, 7)
    run(CONFIG, engine, batches(10), heard.hooks(), rank=0, start=0, steps=10)
    assert [record.skipped for record in heard.records] == [2, 3]
    assert len(heard.warnings) == 2
    assert heard.records[-1].as_dict()["skipped"] == 3


def test_no_step_that_can_be_taken_stops_it() -> None:
    heard, engine = Heard(), Skipping()
    engine.bad = tuple(range(5, 40))
    with pytest.raises(TrainingError, match="11 steps in a row"):
        run(CONFIG, engine, batches(24), heard.hooks(), rank=0, start=0, steps=24)
    assert engine.step == 15
