"""What other tools are told of a run: real event files, a bucket that fails, tools that are not installed."""

import json
import math
import resource
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c

from raylens.config import RunConfig, flatten, validated
from raylens.config.tracking import MlflowConfig, TrackingConfig
from raylens.errors import ConfigError, MissingExtraError, NotFoundError, StorageError, UnreachableError
from raylens.evaluate.metrics import Metric
from raylens.storage import Store
from raylens.storage.local import LocalStore
from raylens.train.loop.events import Evaluated, Metrics, Restarting, RunEvent, Started, Stopping
from raylens.train.loop.metrics import StepMetrics
from raylens.train.tracking import Trackers, tensorboard, trackers
from raylens.train.tracking.event_file import EventFile
from raylens.train.tracking.ids import TrackingIds
from raylens.train.tracking.sink import HISTOGRAMS, Outcome, Point, point_of
from raylens.train.tracking.sink_thread import SinkThread
from raylens.train.tracking.tensorboard import TensorBoard

CONFIG = validated(RunConfig, {"name": "tracked", "global_batch": 64, "data": {"train": "x"}})
ONLY_TENSORBOARD = TrackingConfig(prometheus=False)
COUNTS = (0,) * 10 + (4, 0, 2) + (0,) * 27


@dataclass(frozen=True)
class Bucket(Store):
    """Objects in memory, in a store that can be away or not answer."""

    objects: dict[str, bytes] = field(default_factory=dict)
    away: threading.Event = field(default_factory=threading.Event)
    stuck: threading.Lock = field(default_factory=threading.Lock)
    prefix: str = ""

    @property
    def uri(self) -> str:
        return f"memory://{self.prefix}"

    def describe(self) -> str:
        return self.uri

    def __truediv__(self, sub: str) -> "Bucket":
        return Bucket(self.objects, self.away, self.stuck, f"{self.prefix}{sub}/")

    def read(self, path: str, *, version: str | None = None) -> bytes:
        assert version is None
        if self.prefix + path not in self.objects:
            raise NotFoundError(f"no {path}")
        return self.objects[self.prefix + path]

    def write(self, path: str, data: bytes) -> None:
        with self.stuck:
            if self.away.is_set():
                raise UnreachableError("the bucket is away")
            self.objects[self.prefix + path] = data

    def _unused(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    arrow = read_range = read_with_version = write_once = compare_and_set = upload = download = _unused
    list = info = delete = delete_tree = _unused


def record(step: int, **values: Any) -> StepMetrics:
    nothing = {one.name: None for one in fields(StepMetrics)}
    return StepMetrics(**{**nothing, "step": step, "bound": "device", "sample_hashes": ("0a",), "loss": 2.0, **values})


def told(step: int, **values: Any) -> RunEvent:
    return Metrics(record(step, **values), 100)


def started(start: int) -> RunEvent:
    return Started(start=start, steps=100, workers=2, micro_batch=32, micro_batches=1)


def framed(data: bytes) -> Iterator[Event]:
    """Events of a file, each checked as TensorBoard checks it."""
    while data:
        (length,), (crc,) = struct.unpack("<Q", data[:8]), struct.unpack("<I", data[8:12])
        body, tail = data[12 : 12 + length], data[12 + length : 16 + length]
        assert crc == masked_crc32c(data[:8])
        assert struct.unpack("<I", tail) == (masked_crc32c(body),)
        yield Event.FromString(body)
        data = data[16 + length :]


def shown(files: list[bytes]) -> dict[int, dict[str, Any]]:
    """Values by step and tag as TensorBoard shows them: a session that starts hides its step and later ones before."""
    steps: dict[int, dict[str, Any]] = {}
    for data in files:
        first, *events = framed(data)
        assert first.file_version == "brain.Event:2"
        for event in events:
            if event.session_log.status == SessionLog.START:
                steps = {step: values for step, values in steps.items() if step < event.step}
            for value in event.summary.value:
                figure = value.histo if value.HasField("histo") else value.simple_value
                steps.setdefault(event.step, {})[value.tag] = figure
    return steps


def folder(run: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((run / "tensorboard").iterdir())]


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def track(store: Store, *event: RunEvent, config: TrackingConfig = ONLY_TENSORBOARD) -> list[str]:
    """What is warned of while a run with these events is tracked."""
    warned: list[str] = []
    with Trackers(config, CONFIG, store, warned.append) as these:
        for one in event:
            these.on_event(one)
    return warned


class TestPoints:
    def test_a_point_has_the_finite_numbers_and_no_others(self) -> None:
        point = point_of(told(7, loss=1.5, grad_norm=math.inf, lr=math.nan, skipped=3, first_batch_seconds=None))
        assert point is not None
        assert point.step == 7
        assert point.scalars == {"loss": 1.5, "skipped": 3.0}
        assert point.histograms == {}

    def test_evaluations_have_a_name_of_their_own(self) -> None:
        point = point_of(Evaluated(9, (Metric("frank", 1.25, "max"), Metric("recall", math.nan, "max")), 4.5))
        values = {"evaluation/frank": 1.25, "evaluation_seconds": 4.5}
        assert point == Point(9, values, goals={"evaluation/frank": "max"})

    def test_other_news_have_no_figures(self) -> None:
        assert [point_of(event) for event in (started(3), Restarting("lost"), Stopping(4))] == [None] * 3

    def test_histograms_are_those_that_count_something(self) -> None:
        empty, full = point_of(told(1)), point_of(told(1, positive_cosines=COUNTS, negative_cosines=(0,) * 40))
        assert empty is not None
        assert full is not None
        assert (list(empty.histograms), list(full.histograms)) == ([], ["positive_cosines"])
        assert HISTOGRAMS == ("positive_cosines", "negative_cosines")


class TestTensorBoard:
    def test_scalars_and_evaluations_are_read_back(self, tmp_path: Path) -> None:
        event = [
            started(0),
            told(10, loss=3.5, lr=1e-4),
            Evaluated(10, (Metric("recall", 0.5, "max"),), 2.0),
            told(20, loss=3.25),
        ]
        assert track(LocalStore(str(tmp_path)), *event) == []
        (data,) = folder(tmp_path)
        steps = shown([data])
        assert steps[10] == pytest.approx(
            {"loss": 3.5, "lr": 1e-4, "evaluation/recall": 0.5, "evaluation_seconds": 2.0}, rel=1e-6
        )
        assert steps[20] == {"loss": 3.25}
        assert [path.name for path in tmp_path.iterdir()] == ["tensorboard"]

    def test_histograms_are_read_back(self, tmp_path: Path) -> None:
        track(LocalStore(str(tmp_path)), started(0), told(1, positive_cosines=COUNTS))
        histogram = shown(folder(tmp_path))[1]["positive_cosines"]
        assert (histogram.num, list(histogram.bucket)) == (6, [4, 0, 2])
        assert (histogram.min, histogram.max) == pytest.approx((-0.5, -0.35))
        assert list(histogram.bucket_limit) == pytest.approx([-0.45, -0.4, -0.35])
        assert histogram.sum == pytest.approx(4 * -0.475 + 2 * -0.375)
        assert histogram.sum_squares == pytest.approx(4 * 0.475**2 + 2 * 0.375**2)

    @given(counts=st.lists(st.integers(0, 10**6), min_size=1, max_size=64).filter(any))
    def test_any_histogram_holds_all_counts_within_its_ends(
        self, counts: list[int], tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        file = EventFile(tmp_path_factory.mktemp("events"))
        file.add(Point(1, {}, {"cosines": tuple(map(float, counts))}))
        histogram = shown([file.path.read_bytes()])[1]["cosines"]
        assert histogram.num == sum(counts) == sum(histogram.bucket)
        assert histogram.bucket[0] > 0 < histogram.bucket[-1]
        assert -1 - 1e-9 <= histogram.min < histogram.bucket_limit[0]
        assert histogram.bucket_limit[-1] == pytest.approx(histogram.max)
        assert histogram.min <= histogram.sum / histogram.num <= histogram.max <= 1 + 1e-9
        assert histogram.sum**2 <= histogram.num * histogram.sum_squares * (1 + 1e-9)

    def test_a_resumed_run_replaces_the_steps_that_it_takes_again(self, tmp_path: Path) -> None:
        store = LocalStore(str(tmp_path))
        track(store, started(0), told(10, loss=1.0), told(20, loss=2.0), told(21, loss=3.0), told(22, loss=3.0))
        track(store, started(20), told(22, loss=4.0))
        assert len(folder(tmp_path)) == 2
        assert shown(folder(tmp_path)) == {10: {"loss": 1.0}, 20: {"loss": 2.0}, 22: {"loss": 4.0}}

    def test_so_do_workers_that_restart_while_it_runs(self, tmp_path: Path) -> None:
        event = [started(0), told(10), told(20), Restarting("lost"), started(10), told(20, loss=5.0)]
        track(LocalStore(str(tmp_path)), *event)
        assert shown(folder(tmp_path)) == {10: {"loss": 2.0}, 20: {"loss": 5.0}}

    def test_switched_off_it_writes_nothing(self, tmp_path: Path) -> None:
        off = TrackingConfig(tensorboard=False)
        assert track(LocalStore(str(tmp_path)), started(0), told(1), config=off) == []
        assert list(tmp_path.iterdir()) == []

    def test_a_full_disk_leaves_whole_records(self, tmp_path: Path) -> None:
        file = EventFile(tmp_path)
        file.add(Point(1, {"loss": 1.0}))
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file.size + 9, limits[1]))
        try:
            with pytest.raises(OSError, match="record"):
                file.add(Point(2, {"loss": 2.0}))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        file.add(Point(3, {"loss": 3.0}))
        assert file.path.stat().st_size == file.size
        assert shown([file.path.read_bytes()]) == {1: {"loss": 1.0}, 3: {"loss": 3.0}}


class TestFailures:
    def test_it_is_warned_of_once_and_tried_again(self, tmp_path: Path) -> None:
        """A file lies where the folder should be, and is taken away."""
        obstacle, warned = tmp_path / "tensorboard", list[str]()
        obstacle.write_text("in the way")
        with Trackers(ONLY_TENSORBOARD, CONFIG, LocalStore(str(tmp_path)), warned.append) as these:
            these.on_event(started(0))
            these.on_event(told(1))
            wait_for(lambda: drained(these))
            these.on_event(Stopping(1))
            assert len(warned) == 1
            these.on_event(told(2))
            wait_for(lambda: drained(these))
            obstacle.unlink()
            these.on_event(told(3))
        (line,) = warned
        assert line.startswith("tensorboard ")
        assert "FileExistsError" in line
        assert "\n" not in line
        assert list(shown(folder(tmp_path))) == [3]

    def test_whoever_is_warned_may_tell_it_as_news(self, tmp_path: Path) -> None:
        (tmp_path / "tensorboard").write_text("in the way")
        warned: list[str] = []

        def warn(text: str) -> None:
            warned.append(text)
            these.on_event(Stopping(1))

        with Trackers(ONLY_TENSORBOARD, CONFIG, LocalStore(str(tmp_path)), warn) as these:
            these.on_event(told(1))
        assert len(warned) == 1

    def test_a_tool_that_is_far_behind_takes_no_more_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("raylens.train.tracking.sink_thread.MOST_WAITING", 3)
        lane = SinkThread(Slow())
        for step in range(5):
            lane.add(Point(step, {}))
        assert lane.failure.startswith("3 records")

    def test_the_run_ends_though_a_tool_does_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(trackers, "END_SECONDS", 0.1)
        slow, warned = Slow(), list[str]()
        monkeypatch.setattr(trackers, "_sinks", lambda *_: [slow])
        begun = time.monotonic()
        with Trackers(ONLY_TENSORBOARD, CONFIG, Bucket(), warned.append) as these:
            these.on_event(told(1))
            these.on_event(told(2))
        assert time.monotonic() - begun < 10.0
        (line,) = warned
        assert line.startswith("slow ")
        slow.go.set()
        wait_for(lambda: "raylens-slow" not in [thread.name for thread in threading.enumerate()])
        assert slow.steps == [1]

    @pytest.mark.parametrize(
        ("error", "outcome"),
        [(None, "finished"), (KeyboardInterrupt(), "interrupted"), (ValueError("bad"), "failed")],
    )
    def test_tools_hear_how_it_ended(
        self, error: BaseException | None, outcome: Outcome, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sink = Slow()
        sink.go.set()
        monkeypatch.setattr(trackers, "_sinks", lambda *_: [sink])
        these = Trackers(ONLY_TENSORBOARD, CONFIG, Bucket(), print)
        these.__enter__()
        these.on_event(told(4))
        these.__exit__(type(error) if error else None, error, None)
        assert (sink.steps, sink.outcome) == ([4], outcome)
        assert "raylens-slow" not in [thread.name for thread in threading.enumerate()]


@dataclass
class Slow:
    """Takes nothing before it is let go."""

    name: str = "slow"
    every_seconds: float = 3600.0
    go: threading.Event = field(default_factory=threading.Event)
    steps: list[int] = field(default_factory=list)
    outcome: str = ""

    def begin(self, start: int) -> None:
        pass

    def add(self, point: Point) -> None:
        assert self.go.wait(20.0)
        self.steps.append(point.step)

    def flush(self) -> None:
        pass

    def close(self, outcome: Outcome) -> None:
        self.outcome = outcome


def drained(these: Trackers) -> bool:
    """Whether everything that was told so far has been tried: the tools' threads wait for more."""
    time.sleep(0.05)
    return all(lane._tasks.empty() for lane in these._threads)


class TestBucket:
    def test_files_arrive_at_the_end(self) -> None:
        bucket = Bucket()
        assert track(bucket, started(0), told(10), told(20)) == []
        (path,) = bucket.objects
        assert path.startswith("tensorboard/events.out.tfevents.")
        assert list(shown(list(bucket.objects.values()))) == [10, 20]

    def test_and_now_and_then_before(self) -> None:
        bucket = Bucket()
        lane = SinkThread(TensorBoard(bucket, every_seconds=0.02))
        lane.start()
        lane.begin(0)
        lane.add(Point(1, {"loss": 1.0}))
        wait_for(lambda: 1 in shown(list(bucket.objects.values())))
        lane.add(Point(2, {"loss": 2.0}))
        wait_for(lambda: 2 in shown(list(bucket.objects.values())))
        lane.close("finished")
        lane.join(20.0)
        assert lane.failure == ""

    def test_what_a_bucket_did_not_take_comes_later(self) -> None:
        bucket = Bucket()
        bucket.away.set()
        sink = TensorBoard(bucket)
        for start in (0, 1):
            sink.begin(start)
            sink.add(Point(start + 1, {"loss": float(start)}))
        with pytest.raises(UnreachableError, match="away"):
            sink.flush()
        bucket.away.clear()
        sink.close("finished")
        assert len(bucket.objects) == 2
        assert shown([bucket.objects[name] for name in sorted(bucket.objects)]) == {1: {"loss": 0.0}, 2: {"loss": 1.0}}

    def test_a_bucket_that_is_away_at_the_end_is_warned_of(self) -> None:
        bucket = Bucket()
        bucket.away.set()
        (line,) = track(bucket, started(0), told(1))
        assert line.startswith("tensorboard ")
        assert "UnreachableError: the bucket is away" in line

    def test_a_bucket_that_does_not_answer_holds_nobody_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(trackers, "END_SECONDS", 0.1)
        bucket, begun = Bucket(), time.monotonic()
        with bucket.stuck:
            (line,) = track(bucket, started(0), *[told(step) for step in range(1, 50)])
            assert time.monotonic() - begun < 10.0
        assert line.startswith("tensorboard ")
        wait_for(lambda: "raylens-tensorboard" not in [thread.name for thread in threading.enumerate()])

    def test_what_is_written_again_each_time_stays_small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tensorboard, "LARGEST_FILE", 200)
        bucket = Bucket()
        sink = TensorBoard(bucket)
        sink.begin(0)
        for step in range(1, 21):
            sink.add(Point(step, {"loss": float(step)}))
            sink.flush()
        sink.close("finished")
        assert len(bucket.objects) > 3
        assert max(map(len, bucket.objects.values())) < 300
        assert list(shown([bucket.objects[name] for name in sorted(bucket.objects)])) == list(range(1, 21))

    def test_the_temporary_folder_goes(self) -> None:
        sink = TensorBoard(Bucket())
        sink.add(Point(1, {}))
        assert sink._temporary is not None
        temporary = Path(sink._temporary.name)
        assert temporary.is_dir()
        sink.close("finished")
        assert not temporary.exists()


class TestPackages:
    @pytest.mark.parametrize(
        ("tool", "values"), [("mlflow", {"tracking_uri": "http://127.0.0.1:5"}), ("wandb", {"project": "p"})]
    )
    def test_a_missing_package_is_told_before_anything_trains(
        self, tool: str, values: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, tool, None)  # what importing finds where there is none
        config = validated(TrackingConfig, {tool: values})
        with pytest.raises(MissingExtraError, match=rf"tracking.{tool} needs .* pip install 'raylens\[{tool}\]'"):
            Trackers(config, CONFIG, LocalStore(str(tmp_path)), print)
        assert list(tmp_path.iterdir()) == []

    def test_prometheus_does_nothing_without_ray(self, tmp_path: Path) -> None:
        config = TrackingConfig(tensorboard=False)
        assert track(LocalStore(str(tmp_path)), started(0), told(1), config=config) == []


class TestSettings:
    def test_parameters_have_dotted_keys_and_texts(self) -> None:
        parameters = flatten(CONFIG.model_dump(mode="json"))
        assert parameters["data.train.0.uri"] == "x"
        assert parameters["optim.peak_lr"] == "0.0005"
        assert parameters["resources.min_workers"] == "null"
        assert parameters["data.drop_last"] == "false"

    @pytest.mark.parametrize("uri", ["http://me:secret@host:5000", "https://me@host"])
    def test_a_password_is_not_written_down(self, uri: str) -> None:
        with pytest.raises(ConfigError, match="MLFLOW_TRACKING_USERNAME") as caught:
            validated(TrackingConfig, {"mlflow": {"tracking_uri": uri}})
        assert "secret" not in str(caught.value)
        assert MlflowConfig(tracking_uri="http://host/a@b").experiment == "raylens"

    def test_unknown_and_missing_keys_are_named(self) -> None:
        with pytest.raises(ConfigError, match=r"wandb\.project is missing"):
            validated(TrackingConfig, {"wandb": {}})
        with pytest.raises(ConfigError, match=r"wandb\.mode = 'on'"):
            validated(TrackingConfig, {"wandb": {"project": "p", "mode": "on"}})


class TestIds:
    def test_an_id_is_of_one_place(self, tmp_path: Path) -> None:
        store = LocalStore(str(tmp_path))
        assert TrackingIds(store).get("mlflow", "here") is None
        TrackingIds(store).put("mlflow", "here", "1")
        TrackingIds(store).put("wandb", "there", "2")
        again = TrackingIds(store)
        assert [again.get("mlflow", "here"), again.get("mlflow", "there"), again.get("wandb", "there")] == [
            "1",
            None,
            "2",
        ]
        assert json.loads((tmp_path / "tracking.json").read_text())["wandb"] == {"place": "there", "id": "2"}

    def test_an_id_that_was_not_written_is_known_and_written_later(self) -> None:
        bucket = Bucket()
        ids = TrackingIds(bucket)
        bucket.away.set()
        with pytest.raises(UnreachableError):
            ids.put("mlflow", "here", "1")
        assert ids.get("mlflow", "here") == "1"
        bucket.away.clear()
        ids.save()
        assert TrackingIds(bucket).get("mlflow", "here") == "1"

    @pytest.mark.parametrize("text", ["{", "[]", '{"mlflow": "1"}', '{"mlflow": {"id": 1, "place": "x"}}'])
    def test_a_damaged_file_is_told(self, text: str) -> None:
        with pytest.raises(StorageError, match=r"tracking.json is damaged .*delete it"):
            TrackingIds(Bucket({"tracking.json": text.encode()}))
