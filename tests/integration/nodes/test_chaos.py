"""A run over several raylets loses workers, a node, its driver and its storage, and ends as if nothing had been.

`RAYLENS_CHAOS_KILLS=12 make chaos` gives the table of docs/reliability.md.
"""

import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from raylens.config import RunConfig, apply_overrides, dump_yaml, validated
from raylens.data.pack import pack
from raylens.registry import Registry
from raylens.storage import Store, open_store
from raylens.train.checkpoint.store import Checkpoints
from raylens.train.runs.jsonl import read_metrics
from tests.conftest import samples
from tests.integration.nodes.monkey import KINDS, NODE, Kill, Monkey
from tests.integration.nodes.outage import Outage

KILLS = int(os.environ.get("RAYLENS_CHAOS_KILLS", "4"))
STEPS_A_KILL = 40

pytestmark = pytest.mark.slow


def config_of(data: Store, storage: str, name: str) -> RunConfig:
    tree = {
        "name": name,
        "storage": storage,
        "global_batch": 32,
        "data": {"train": data.uri, "chunk_size": 4, "chunks_per_block": 4, "crop_min_scale": 0.7},
        "model": {
            "embed_dim": 32,
            "image": {"size": 32, "patch": 8, "width": 64, "layers": 2, "heads": 2},
            "text": {"context": 12, "vocab": 600, "width": 64, "layers": 2, "heads": 2},
        },
        "optim": {"peak_lr": 1e-3, "schedule": {"warmup_steps": 10}, "ema_decay": 0.9},
        "length": {"samples_seen": 32 * STEPS_A_KILL * KILLS},
        "checkpoint": {"every_steps": 10, "keep_last": 2},
        "scale": {"workers": 2, "micro_batch": 16},
        "log_every_steps": 1,
    }
    return validated(RunConfig, apply_overrides(tree, []))


def run(
    config: RunConfig, kinds: list[str], cluster: Any, nodes: list[Any], outage: Outage, folder: Path
) -> tuple[str, list[Kill]]:
    path = folder / f"{config.name}.yaml"
    path.write_text(dump_yaml(config))
    monkey = Monkey(path, cluster, nodes, outage, seed=KILLS, most_steps=STEPS_A_KILL // 2)
    return monkey.run(kinds), monkey.kills


def weights(config: RunConfig, version: str) -> dict[str, bytes]:
    _, encoder = Registry(config.registry_uri).load(version)
    return {name: tensor.numpy().tobytes() for name, tensor in encoder.bundle.weights.items()}


def tell(kills: list[Kill]) -> None:
    for kill in kills:
        sys.stdout.write(json.dumps(vars(kill)) + "\n")
    for what in ("seconds", "lost"):
        sys.stdout.write(f"median of {what}: {statistics.median(getattr(kill, what) for kill in kills):.1f}\n")


def test_kills_leave_no_trace(
    tmp_path: Path,
    raylets: Cluster,
    s3_bucket: str,
    s3_server: str,
) -> None:
    outage = Outage(s3_server)
    storage = f"{s3_bucket.replace(s3_server, outage.uri)}"
    data = open_store(storage) / "shards"  # what is trained on is away with the rest
    pack(samples(64), data, per_shard=10)
    calm, wild = (config_of(data, storage, name) for name in ("calm", "wild"))
    nodes = [raylets.add_node(**NODE) for _ in range(2)]
    expected, _ = run(calm, [], raylets, nodes, outage, tmp_path)
    found, kills = run(wild, [KINDS[number % len(KINDS)] for number in range(KILLS)], raylets, nodes, outage, tmp_path)
    tell(kills)
    assert len(kills) == KILLS
    for kill in kills:
        if kill.kind == "store":
            # How many steps it takes meanwhile hangs on what was read ahead, in this moment.
            assert (kill.starts, kill.lost) == (0, 0), kill
        else:
            assert kill.starts > 0, kill
    records = [read_metrics(open_store(storage) / name) for name in ("calm", "wild")]
    hashes = [[word for record in part for word in record["sample_hashes"]] for part in records]
    assert hashes[0] == hashes[1]
    assert len(hashes[0]) == STEPS_A_KILL * KILLS
    assert weights(calm, expected) == weights(wild, found)
    checkpoints = Checkpoints(open_store(storage) / "wild")
    assert checkpoints.steps()[-1] == STEPS_A_KILL * KILLS
    assert not checkpoints.leftovers()
    outage.close()
    ray.shutdown()
