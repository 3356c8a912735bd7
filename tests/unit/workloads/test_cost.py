"""What a run costs, against figures computed by hand."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylens.cluster.description import ClusterSpec
from raylens.config import CheckpointConfig, RunConfig, dump_yaml, validated
from raylens.data.index import manifest_for
from raylens.errors import ConfigError, TrainingError
from raylens.storage import Store, open_store
from raylens.train.checkpoint.retention import steps_to_keep
from raylens.workloads.cost.cost import Cost, cost, pools_of
from raylens.workloads.cost.inputs import CostOptions, data_of, rate_of
from raylens.workloads.cost.page import cost_page
from raylens.workloads.cost.storage import checkpoint_bytes, checkpoints_kept, upload_requests
from raylens.workloads.cost.terms import Data, Rate, Spot
from raylens.workloads.cost.time import duration_of

MODEL = {
    "embed_dim": 16,
    "image": {"size": 16, "patch": 8, "width": 32, "layers": 2, "heads": 2},
    "text": {"context": 12, "vocab": 600, "width": 32, "layers": 1, "heads": 2},
}
RATE = Rate(3600.0, "given", 450.0, "given")
DATA = Data(1_000_000, 50_000.0, 1 / 32, "given")
NO_SPOT = Spot(1.0, 5.0)


def config_of(**changes: Any) -> RunConfig:
    tree: dict[str, Any] = {
        "name": "x",
        "global_batch": 1000,
        "data": {"train": "nowhere"},
        "model": MODEL,
        "length": {"epochs": 12.96},
        "resources": {"workers": 8, "gpus_per_worker": 1, "cpus_per_worker": 4},
    }
    return validated(RunConfig, tree | changes)


def spec_of(**groups: Any) -> ClusterSpec:
    tree: dict[str, Any] = {
        "name": "pets",
        "image": "example.org/raylens:0.1.0",
        "head": {"cpus": 4, "memory": "16Gi", "price_per_hour": 0.5},
        "decode": {"cpus": 4, "memory": "16Gi", "max_nodes": 4, "price_per_hour": 0.25},
        "train": {"cpus": 16, "memory": "64Gi", "gpus": 4, "max_nodes": 2, "price_per_hour": 10},
    }
    merged = {name: value if value is None else tree.get(name, {}) | value for name, value in groups.items()}
    return validated(ClusterSpec, tree | merged)


def cost_of(config: RunConfig, spec: ClusterSpec, rate: Rate = RATE, spot: Spot = NO_SPOT) -> Cost:
    return cost(config, spec, rate, DATA, spot, start_minutes=6)


def test_hours_machines_and_money_by_hand() -> None:
    """12.96 million pairs at 3,600 a second are one hour; with 6 minutes to start 1.1."""
    found = cost_of(config_of(), spec_of())
    figures = {one.name: one.value for one in found.figures}
    assert figures["steps"] == 12_960
    assert figures["pairs seen"] == 12_960_000
    assert figures["training"] == pytest.approx(1.0)
    assert figures["hours"] == pytest.approx(1.1)
    # 3,600 pairs/s at 450 a core: 8 cores, 2 nodes; 8 workers, 4 on a node of 16 CPUs and 4 GPUs.
    assert (figures["head nodes"], figures["decode nodes"], figures["train nodes"]) == (1, 2, 2)
    assert figures["train node-hours"] == pytest.approx(2.2)
    assert figures["GPU-hours"] == pytest.approx(8.8)
    assert figures["price an hour"] == pytest.approx(0.5 + 2 * 0.25 + 2 * 10)
    assert figures["price"] == pytest.approx(21.0 * 1.1)
    assert "restarts" not in figures
    assert all(one.how for one in found.figures)


def test_storage_and_requests_by_hand() -> None:
    config = config_of(checkpoint={"every_steps": 1000, "keep_last": 2, "keep_every": 5000}, log_every_steps=100)
    figures = {one.name: one.value for one in cost_of(config, spec_of()).figures}
    # 50 kB a pair; and 29 bytes for each of a million samples to both nodes that decode.
    assert figures["data read"] == 12_960_000 * 50_000 + 2 * 29_000_000
    assert figures["GET requests"] == 12_960_000 / 32 + 2 * 4
    # 12,000 of 12,960 steps, and the last.
    assert figures["checkpoints written"] == 13
    assert figures["written"] == 13 * figures["checkpoint"]
    # 12,000 and 12,960; 5,000 and 10,000.
    assert figures["kept"] == 4 * figures["checkpoint"]
    # A few hundred kB of each of 8 workers in one PUT, and the manifest.
    assert figures["PUT requests of checkpoints"] == 13 * 9
    assert figures["LIST requests of checkpoints"] == 13 * 4
    assert figures["records"] == 130 * (900 + 20 * 100)
    # 130 lines in 66 minutes, each later than 10 s after the one before: one writing each, and the last.
    assert figures["PUT requests of records"] == 131


def test_a_checkpoint_has_weights_moments_and_averages() -> None:
    plain = config_of(resources={"workers": 1})
    weights = cost_of(config_of(), spec_of()).figure("bundle").value
    assert checkpoint_bytes(plain) == 3 * weights
    assert checkpoint_bytes(config_of(optim={"kind": "lion"})) == 2 * weights
    assert checkpoint_bytes(config_of(optim={"ema_decay": 0.999})) == 4 * weights
    locked = checkpoint_bytes(config_of(towers={"lock_image": True}))
    assert weights < locked < 3 * weights


def test_spot_nodes_add_their_restarts() -> None:
    """Two nodes, 12 interruptions a day each: one an hour. Each costs 5 minutes and half of 10 minutes: a sixth."""
    config = config_of(checkpoint={"every_steps": 2160})
    found = cost_of(config, spec_of(train={"spot": True}), spot=Spot(12.0, 5.0))
    figures = {one.name: one.value for one in found.figures}
    assert figures["restarts"] == pytest.approx(1.2)
    assert figures["lost to restarts"] == pytest.approx(0.2)
    assert figures["hours"] == pytest.approx(1.3)
    # 1.2 times half of 2,160 steps are trained again, and read again.
    assert figures["data read"] == pytest.approx((12_960_000 + 1.2 * 1_080_000) * 50_000 + 58_000_000)
    with pytest.raises(ConfigError, match=r"lose more than is trained: save more often"):
        cost_of(config, spec_of(train={"spot": True}), spot=Spot(90.0, 5.0))


@given(st.integers(1, 64), st.floats(0, 20), st.floats(0, 60), st.integers(1, 20_000), st.floats(1, 1e6))
def test_what_is_lost_is_what_is_made_good(
    nodes: int, interruptions: float, restart: float, every: int, speed: float
) -> None:
    """Hours of training and of restarts add up to the run, or the run is refused."""
    config = config_of(checkpoint={"every_steps": every})
    try:
        found = duration_of(config, 10_000, speed, nodes, Spot(interruptions, restart), start_minutes=0)
    except ConfigError:
        interval = min(every, 10_000) * 1000 / speed
        assert nodes * interruptions / 86_400 * (interval / 2 + 60 * restart) >= 1
        return
    training = 10_000 * 1000 / speed / 3600
    restarts = nodes * interruptions / 24 * found.hours
    lost = restarts * (min(every, 10_000) * 1000 / speed / 2 + 60 * restart) / 3600
    assert found.hours == pytest.approx(training + lost)
    assert found.repeated == pytest.approx(restarts * min(every, 10_000) * 1000 / 2)


def test_decoding_can_be_what_holds_a_run_up() -> None:
    """One node of 4 cores makes 1,800 pairs a second, half of what training would take."""
    found = cost_of(config_of(), spec_of(decode={"max_nodes": 1}))
    assert found.figure("speed").value == 1800
    assert "training alone would take 3,600" in found.figure("speed").how
    assert found.figure("training").value == pytest.approx(2.0)
    # Without a group that decodes, it is done by the CPUs that the workers leave.
    config = config_of(resources={"workers": 8, "gpus_per_worker": 1, "cpus_per_worker": 3})
    pools, limit = pools_of(config, spec_of(decode=None), RATE)
    assert [pool.group for pool in pools] == ["head", "train"]
    assert limit == (32 - 24) * 450
    with pytest.raises(ConfigError, match="no CPU is left to decode"):
        cost_of(config_of(), spec_of(decode=None))


def test_a_cluster_too_small_is_refused_with_its_numbers() -> None:
    with pytest.raises(ConfigError, match=r"resources.workers = 10 .* room for 8 \(2 nodes of 16 CPUs and 4 GPUs\)"):
        cost_of(config_of(resources={"workers": 10, "gpus_per_worker": 1, "cpus_per_worker": 4}), spec_of())
    with pytest.raises(ConfigError, match="no group train"):
        cost_of(config_of(), spec_of(train=None))


def test_prices_that_are_missing_are_said_to_be() -> None:
    spec = spec_of(decode={"price_per_hour": None})
    assert "without decode" in cost_of(config_of(), spec).figure("price an hour").how
    none = spec_of(**{name: {"price_per_hour": None} for name in ("head", "decode", "train")})
    found = cost_of(config_of(), none)
    assert not [one for one in found.figures if "price" in one.name]
    assert any("price_per_hour" in note for note in found.notes)


@given(st.integers(1, 300), st.integers(1, 60), st.integers(1, 5), st.integers(1, 100) | st.none())
def test_kept_checkpoints_are_those_of_the_rules(steps: int, every: int, last: int, at: int | None) -> None:
    config = CheckpointConfig(every_steps=every, keep_last=last, keep_every=at)
    there: set[int] = set()
    for step in range(1, steps + 1):
        if step % every == 0 or step == steps:
            there = steps_to_keep(dict.fromkeys({*there, step}), config)
    assert checkpoints_kept(config, steps, every) == len(there)


def test_requests_of_an_upload() -> None:
    part = 8 * 2**20
    assert [upload_requests(size) for size in (1, part, part + 1, 10 * part)] == [1, 1, 4, 12]


def test_the_speed_is_given_measured_or_counted(tmp_path: Path) -> None:
    config = config_of()
    assert rate_of(config, CostOptions(pairs_per_second=100.0)).pairs_per_second == 100
    counted = rate_of(config, CostOptions())
    assert "assumed, not measured" in counted.how
    assert "700 pairs/s that a core decodes" in counted.assumed
    assert "700" not in rate_of(config, CostOptions(pairs_per_core=50.0)).assumed
    run = open_store(tmp_path / "x")
    run.write("config.yaml", dump_yaml(config_of(resources={"workers": 2})).encode())
    rows = [
        {"step": n, "samples_per_second": 100.0 * n, "data_cores": 2.0 * n, "first_batch_seconds": None}
        for n in range(1, 8)
    ]
    run.write("metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    measured = rate_of(config, CostOptions(from_run=run.uri))
    # Of records 3 to 7 the median is 500, with 2 workers; four times as many here; 10 cores were busy.
    assert (measured.pairs_per_second, measured.pairs_per_core) == (2000, 50)
    assert "in proportion for 8" in measured.how
    assert measured.assumed == "that 8 workers are as fast each as 2"
    same = rate_of(config_of(resources={"workers": 2}), CostOptions(from_run=run.uri))
    assert (same.pairs_per_second, same.assumed) == (500, "")
    run.write("config.yaml", b"scale: {workers: 2}")  # as another version wrote it: how many workers is unknown
    unknown = rate_of(config, CostOptions(from_run=run.uri))
    assert (unknown.pairs_per_second, unknown.assumed) == (500, "that x had 8 workers")
    run.write("metrics.jsonl", json.dumps(rows[0]).encode())
    with pytest.raises(TrainingError, match="let it train on"):
        rate_of(config, CostOptions(from_run=run.uri))
    with pytest.raises(ConfigError, match="give one of them"):
        rate_of(config, CostOptions(pairs_per_second=1.0, from_run=run.uri))
    with pytest.raises(ConfigError, match="--pairs-per-second"):
        rate_of(config_of(resources={"workers": 2}), CostOptions())


def test_data_is_taken_from_the_manifest_where_there_is_one(tmp_path: Path, make_shards: Callable[..., Store]) -> None:
    shards = make_shards(40)
    config = config_of(
        storage=str(tmp_path / "runs"), data={"train": shards.uri, "chunk_size": 4, "chunks_per_block": 2}
    )
    with pytest.raises(ConfigError, match=r"how many pairs an epoch has is not known: give --pairs N"):
        data_of(config, CostOptions())
    (source,) = config.data.train
    cache = open_store(config.storage) / "manifests"
    manifest = manifest_for(source, cache, lambda items, function: map(function, items))
    found = data_of(config, CostOptions())
    stored = sum(info.size for info in shards.list() if info.path.endswith(".tar"))
    assert (found.pairs, found.how, found.assumed, found.lists) == (len(manifest), "from the manifest", "", 1)
    assert 0 < found.bytes_per_pair * 40 < stored
    # A request for each run of four; neighbours that happen to be drawn together share one.
    assert 1 / 8 <= found.gets_per_pair <= 1
    said = data_of(config, CostOptions(pairs=1000, bytes_per_pair=10.0))
    assert (said.pairs, said.bytes_per_pair, said.gets_per_pair) == (1000, 10.0, 1 / 4)
    seen = data_of(config_of(length={"samples_seen": 5000}), CostOptions())
    assert (seen.pairs, bool(seen.assumed)) == (5000, True)


def test_the_page_has_every_figure_with_its_origin() -> None:
    found = cost_of(config_of(), spec_of())
    (line,) = cost_page("x", found, as_json=True)
    assert isinstance(line, str)
    tree = json.loads(line)
    assert set(tree["figures"]) == {one.name for one in found.figures}
    assert tree["figures"]["hours"]["value"] == pytest.approx(1.1)
    assert all(math.isfinite(row["value"]) and row["how"] and row["unit"] for row in tree["figures"].values())
    table, *notes = cost_page("x on pets", found, as_json=False)
    assert not isinstance(table, str)
    assert table.row_count == len(found.figures)
    assert "not counted" in str(notes[-1])
