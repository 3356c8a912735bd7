"""A run that is over: what it told, that a second start finds nothing to do, and what it refuses."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import ray
from prometheus_client.parser import text_string_to_metric_families

from raylens.config import RunConfig, apply_overrides, validated
from raylens.data.pack import pack
from raylens.errors import CheckpointError, ConfigError, ManifestError
from raylens.messages import quiet
from raylens.storage import Store, open_store
from raylens.train import RunResult, train
from raylens.train.checkpoint.store import Checkpoints
from raylens.train.loop.events import Checkpointed, Metrics, Preparing, RunEvent, Started
from raylens.train.runs.jsonl import read_metrics
from tests.conftest import samples
from tests.helpers.processes import TorchWatch
from tests.integration.test_training import check_like_plain_torch, small


@dataclass(frozen=True)
class Trained:
    """A run that is over, and what was heard of it."""

    config: RunConfig
    result: RunResult
    heard: list[RunEvent]
    processes: TorchWatch


@pytest.fixture(scope="module")
def trained(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """By two workers without ZeRO. A test that changes something of it puts it back: starting workers takes longest."""
    folder = tmp_path_factory.mktemp("trained")
    data = open_store(folder / "shards")
    pack(samples(40), data, per_shard=10)
    config, heard = small(folder, data, **{"name": "trained", "zero.stage": 0}), list[RunEvent]()
    with TorchWatch() as processes:
        result = train(config, say=quiet, on_event=heard.append)
    return Trained(config, result, heard, processes)


@contextmanager
def put_back(store: Store, path: str) -> Iterator[bytes]:
    """An object's content, which it has again afterwards."""
    whole = store.read(path)
    try:
        yield whole
    finally:
        store.write(path, whole)


def test_two_workers_without_zero_train_like_plain_torch(trained: Trained) -> None:
    check_like_plain_torch(trained.config, trained.result)


def test_only_what_computes_loads_torch(trained: Trained) -> None:
    """2 s of a core in each process that does: the controller, the one that deals blocks out and the channel do not."""
    quick = {"_Controller", "SplitCoordinator", "DriverChannel", "SynchronizationActor", "_StatsActor"}
    assert trained.processes.seen >= quick | {"RayTrainWorker"}
    assert "RayTrainWorker" in trained.processes.loaded  # so that it would be seen
    assert not trained.processes.loaded & quick
    # Processes that Ray Train starts by itself, and that a cluster of this command's own has no use for.
    assert not trained.processes.seen & {"DatasetManager", "PlacementGroupCleaner", "PreemptionWatcher"}


def test_news_checkpoints_and_a_second_start(trained: Trained) -> None:
    config, first, heard = trained.config, trained.result, trained.heard
    assert [type(event) for event in heard[:2]] == [Preparing, Started]
    assert heard[1] == Started(0, 8, 2, config.worker_batch, 1)
    assert [event.record.step for event in heard if isinstance(event, Metrics)] == list(range(1, 9))
    assert [event for event in heard if isinstance(event, Checkpointed)] == [Checkpointed(4), Checkpointed(8)]
    again = train(config, say=quiet, on_event=heard.append)
    assert (first.resumed_at, again.resumed_at) == (0, 8)
    assert again.version == first.version
    # Retention, and no leftovers of attempts.
    store = Checkpoints(open_store(first.run_uri))
    assert store.steps() == [4, 8]
    for step in store.steps():
        named = {file.path for file in store.manifest(step).files} | {"checkpoint.json"}
        folder = f"step-{step:08d}"
        assert {info.path.removeprefix(f"{folder}/") for info in store.store.list(folder)} == named


def test_prometheus_finds_the_figures_at_the_node(trained: Trained) -> None:
    """Among Ray's own, which a node gives out anew every ten seconds."""
    (node,) = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    last, deadline = read_metrics(open_store(trained.result.run_uri))[-1], time.monotonic() + 120
    while (found := figures(httpx.get(url).text)).get("step") != last["step"]:
        assert time.monotonic() < deadline, found
        time.sleep(0.5)
    names = ("loss", "logit_scale", "grad_norm", "samples_per_second")
    assert {name: found[name] for name in names} == pytest.approx({name: last[name] for name in names})


def figures(page: str) -> dict[str, float]:
    """Those of the run, by name."""
    rows = (row for family in text_string_to_metric_families(page) for row in family.samples)
    return {
        row.name.removeprefix("ray_raylens_train_"): row.value for row in rows if row.labels.get("run") == "trained"
    }


def test_other_settings_are_refused_with_both_values(trained: Trained) -> None:
    store = Checkpoints(open_store(trained.result.run_uri))
    store.store.write("step-00000009/half/worker-00000.safetensors", b"an attempt without a manifest")
    assert store.newest().step == 8  # type: ignore[union-attr]
    store.store.delete("step-00000009/half/worker-00000.safetensors")
    other = validated(RunConfig, apply_overrides(trained.config.model_dump(), ["optim.peak_lr=0.5"]))
    with pytest.raises(ConfigError, match=r"optim\.peak_lr was 0\.002, is now 0\.5"):
        train(other, say=quiet)


def test_other_shards_under_the_same_run_are_refused(trained: Trained) -> None:
    shards = open_store(trained.config.data.train[0].uri)
    with put_back(shards, "000003.tar"):
        shards.delete("000003.tar")
        with pytest.raises(ManifestError, match=r"trained began with: 000003\.tar is gone"):
            train(trained.config, say=quiet)


def test_shards_that_were_only_copied_are_the_same(trained: Trained) -> None:
    for path in Path(trained.config.data.train[0].uri).iterdir():
        os.utime(path)
    assert train(trained.config, say=quiet).version == trained.result.version


def test_a_damaged_checkpoint_is_named(trained: Trained) -> None:
    store = Checkpoints(open_store(trained.result.run_uri)).store
    victim = next(info.path for info in store.list("step-00000008") if "worker-00000" in info.path)
    with put_back(store, victim) as whole:
        store.write(victim, whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(CheckpointError, match=r"worker-00000\.safetensors of step 8 .* differs from the hash"):
            train(trained.config, say=quiet)
