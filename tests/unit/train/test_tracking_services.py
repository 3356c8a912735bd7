"""MLflow and W&B as they are, each with a store on this machine."""

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import DecodeError

from raylens.config import RunConfig, validated
from raylens.config.tracking import TrackingConfig
from raylens.errors import ConfigError
from raylens.evaluate.metrics import Metric
from raylens.storage.local import LocalStore
from raylens.train.loop.events import Evaluated
from raylens.train.tracking import Trackers
from raylens.train.tracking.sink import Point

VALUES: dict[str, Any] = {"name": "tracked", "global_batch": 64, "data": {"train": "x" * 7000}}
COUNTS = (0.0,) * 30 + (5.0,) * 10
LONGEST_VALUE = 6000


def point(step: int, loss: float) -> Evaluated:
    return Evaluated(step, (Metric("loss", loss, "min"), Metric("recall@1", 0.5, "max")), 1.0)


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No account, no settings and no network of whoever runs this."""
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_MODE", "MLFLOW_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    here = {"HOME": "home", "NETRC": "netrc", "WANDB_CONFIG_DIR": "config", "WANDB_CACHE_DIR": "cache"}
    for name, part in here.items():
        monkeypatch.setenv(name, str(tmp_path / part))
    for name in ("MLFLOW_DISABLE_TELEMETRY", "MLFLOW_ALLOW_FILE_STORE", "DO_NOT_TRACK"):
        monkeypatch.setenv(name, "true")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    (tmp_path / "run").mkdir()


def config(tool: str, values: dict[str, str]) -> TrackingConfig:
    return validated(TrackingConfig, {"tensorboard": False, "prometheus": False, tool: values})


@pytest.mark.filterwarnings("ignore:::mlflow.*")
class TestMlflow:
    def tracking(self, tmp_path: Path) -> TrackingConfig:
        return config("mlflow", {"tracking_uri": (tmp_path / "mlruns").as_uri(), "experiment": "ours"})

    def test_a_resumed_run_goes_on_in_the_same_one(self, tmp_path: Path) -> None:
        import mlflow

        store, warned = LocalStore(str(tmp_path / "run")), list[str]()
        these = Trackers(self.tracking(tmp_path), validated(RunConfig, VALUES), store, warned.append)
        these.__enter__()
        these.on_event(point(1, 3.0))
        these.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
        other = validated(RunConfig, {**VALUES, "scale": {"workers": 4}})
        client = mlflow.MlflowClient(tracking_uri=(tmp_path / "mlruns").as_uri())
        run_id = json.loads(store.read_text("tracking.json"))["mlflow"]["id"]
        assert client.get_run(run_id).info.status == "KILLED"
        with Trackers(self.tracking(tmp_path), other, store, warned.append) as these:
            these.on_event(point(2, 2.0))
        assert warned == []
        (experiment,) = [one for one in client.search_experiments() if one.name == "ours"]
        (run,) = client.search_runs([experiment.experiment_id])
        assert (run.info.run_id, run.info.run_name, run.info.status) == (run_id, "tracked", "FINISHED")
        assert run.data.params["scale.workers"] == "2"
        assert run.data.params["data.train.0.uri"] == "x" * LONGEST_VALUE
        assert run.data.tags["raylens.storage"] == store.uri
        history = client.get_metric_history(run_id, "evaluation/loss")
        assert [(one.step, one.value) for one in history] == [(1, 3.0), (2, 2.0)]
        assert run.data.metrics["evaluation/recall_1"] == 0.5
        assert {key: goal for key, goal in run.data.tags.items() if key.startswith("raylens.goal.")} == {
            "raylens.goal.evaluation/loss": "min",
            "raylens.goal.evaluation/recall_1": "max",
        }

    def test_a_run_that_is_gone_there_is_made_again(self, tmp_path: Path) -> None:
        store = LocalStore(str(tmp_path / "run"))
        place = f"{(tmp_path / 'mlruns').as_uri()} ours"
        store.write("tracking.json", json.dumps({"mlflow": {"place": place, "id": "0" * 32}}).encode())
        warned: list[str] = []
        with Trackers(self.tracking(tmp_path), validated(RunConfig, VALUES), store, warned.append) as these:
            these.on_event(point(1, 3.0))
        assert warned == []
        assert json.loads(store.read_text("tracking.json"))["mlflow"]["id"] != "0" * 32

    def test_a_server_that_is_down_stops_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        down, warned = config("mlflow", {"tracking_uri": "http://127.0.0.1:9"}), list[str]()
        run = validated(RunConfig, VALUES)
        with Trackers(down, run, LocalStore(str(tmp_path / "run")), warned.append) as these:
            these.on_event(point(1, 3.0))
            these.on_event(point(2, 3.0))
        (line,) = warned
        assert line.startswith("mlflow ")
        assert "MlflowException" in line


def written(path: Path, records: Any) -> list[Any]:
    """All records of W&B's file; its own process may still be writing when the run has ended here."""
    for _ in range(100):
        try:
            found = [records.Record.FromString(data) for data in logged(path.read_bytes())]
        except DecodeError:
            found = []
        if found and found[-1].HasField("exit"):
            return found
        time.sleep(0.1)
    raise AssertionError(f"{path} was not finished")


def logged(data: bytes) -> Iterator[bytes]:
    """The records of W&B's file: LevelDB's log format, blocks of 32 KiB with parts of records, behind 7 bytes."""
    place, whole = 7, b""
    while place + 7 <= len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield whole
            whole = b""


class TestWandb:
    def test_a_run_is_written_for_later(self, tmp_path: Path) -> None:
        from wandb.proto import wandb_internal_pb2 as records

        store, warned, run = LocalStore(str(tmp_path / "run")), list[str](), validated(RunConfig, VALUES)
        offline = config("wandb", {"project": "p", "mode": "offline"})
        for steps in ((10, 20), (11,)):
            if steps == (11,):
                time.sleep(1.1)  # W&B names a folder by the second
            with Trackers(offline, run, store, warned.append) as these:
                for step in steps:
                    these.on_event(point(step, step / 4))
                    these._threads[0].add(Point(step, {"lr": 0.5}, {"positive_cosines": COUNTS}))
        assert warned == []
        known = json.loads(store.read_text("tracking.json"))["wandb"]["id"]
        rows: list[dict[str, Any]] = []
        goals: set[tuple[str, bool, bool, bool]] = set()
        for path in sorted((tmp_path / "run" / "wandb").glob(f"offline-run-*-{known}/run-{known}.wandb")):
            for record in written(path, records):
                items = record.history.item
                if record.HasField("metric") and record.metric.name.startswith("evaluation/"):
                    summary = record.metric.summary
                    goals.add((record.metric.name, summary.min, summary.max, summary.last))
                rows += [{".".join(item.nested_key): json.loads(item.value_json) for item in items}] if items else []
        assert [(row["_step"], row["step"], row.get("evaluation/loss"), row.get("lr")) for row in rows] == [
            (10, 10, 2.5, None),
            (11, 10, None, 0.5),
            (20, 20, 5.0, None),
            (21, 20, None, 0.5),
            (11, 11, 2.75, None),
            (12, 11, None, 0.5),
        ]
        assert goals == {("evaluation/loss", True, False, True), ("evaluation/recall@1", False, True, True)}
        assert rows[1]["positive_cosines.values"] == list(COUNTS)
        assert rows[1]["positive_cosines.bins"][::20] == [-1.0, 0.0, 1.0]

    def test_steps_that_are_taken_again_are_not_dropped(self, tmp_path: Path) -> None:
        from wandb.proto import wandb_internal_pb2 as records

        store, run = LocalStore(str(tmp_path / "run")), validated(RunConfig, VALUES)
        with Trackers(config("wandb", {"project": "p", "mode": "offline"}), run, store, print) as these:
            for step in (10, 20, 15, 20):
                these.on_event(point(step, 1.0))
        (path,) = (tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb")
        rows = [items for record in written(path, records) if (items := record.history.item)]
        steps = [int(item.value_json) for items in rows for item in items if list(item.nested_key) == ["step"]]
        assert steps == [10, 20, 15, 20]

    def test_nobody_logged_in_is_told_before_anything_trains(self, tmp_path: Path) -> None:
        online = config("wandb", {"project": "p"})
        with pytest.raises(ConfigError, match="nobody is logged in to W&B"):
            Trackers(online, validated(RunConfig, VALUES), LocalStore(str(tmp_path / "run")), print)
