"""A run with as many workers as a cluster of several raylets has room for, while nodes come and go.

A node goes by SIGTERM, as a machine that is shut down. With `make chaos` it is killed, and Ray takes a minute to see
that its room is gone: too long for every test run.
"""

import os
import queue
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from raylens.cluster import session
from raylens.config import RunConfig, validated
from raylens.data.verify import Topology, verify
from raylens.messages import quiet
from raylens.storage import Store, open_store
from raylens.train import train
from raylens.train.loop.events import Metrics, RunEvent, Started
from raylens.train.run import launch
from raylens.train.run.prepare import prepare
from raylens.train.runs.jsonl import read_metrics
from tests.integration.nodes.monkey import NODE
from tests.integration.test_training import reference_losses

KILLED = int(os.environ.get("RAYLENS_CHAOS_KILLS", "0")) > 4
STEPS = 360

pytestmark = pytest.mark.slow


def config_of(tmp_path: Path, data: Store, name: str, workers: object) -> RunConfig:
    tree = {
        "name": name,
        "storage": str(tmp_path / "runs"),
        "global_batch": 12,
        "data": {"train": data.uri, "chunk_size": 4, "chunks_per_block": 4},
        "model": {
            "embed_dim": 16,
            "image": {"size": 16, "patch": 8, "width": 32, "layers": 2, "heads": 2},
            "text": {"context": 12, "vocab": 600, "width": 32, "layers": 1, "heads": 2},
        },
        # A slow rate: rounding, which another number of workers changes, does not grow from step to step.
        "optim": {"peak_lr": 1e-4, "schedule": {"warmup_steps": 2}, "eps": 1e-6, "clip_norm": 1.0},
        "length": {"samples_seen": 12 * STEPS},
        "checkpoint": {"every_steps": 10, "keep_last": 1},
        # Pair by pair: steps take long enough for a node to join, and for the run to see it, before they are over.
        "scale": {"workers": workers, "micro_batch": 1},
        "log_every_steps": 1,
    }
    return validated(RunConfig, tree)


def test_workers_come_and_go_with_the_nodes(
    tmp_path: Path, make_shards: Callable[..., Store], raylets: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Head 1 CPU and a node of 2: two workers and the stream. Another node: four. One node less: two again."""
    monkeypatch.setattr(launch, "RESIZE_SECONDS", 2.0)
    config = config_of(tmp_path, make_shards(40), "elastic", {"min": 1, "max": 4})
    raylets.add_node(**NODE)
    heard: queue.Queue[RunEvent] = queue.Queue()
    starts: list[Started] = []
    with session(raylets.address), ThreadPoolExecutor(1) as apart:
        # Nodes can be added in the main thread alone.
        running = apart.submit(train, config, say=quiet, on_event=heard.put)
        extra: Any = None
        while not (running.done() and heard.empty()):
            event = _next(heard)
            if isinstance(event, Started):
                starts.append(event)
            if not isinstance(event, Metrics) or event.record.step < starts[-1].start + 15:
                continue
            if len(starts) == 1 and extra is None:
                extra = raylets.add_node(**NODE)
            elif starts[-1].workers == 4 and extra is not None:
                raylets.remove_node(extra, allow_graceful=not KILLED)
                extra = None
        result, plan = running.result(), prepare(config, quiet).plan
        # One worker that nobody disturbs, in plain torch.
        losses = reference_losses(config)
    counts = [start.workers for start in starts]
    assert (counts[0], max(counts), counts[-1]) == (2, 4, 2)
    records = read_metrics(open_store(result.run_uri))
    assert [record["loss"] for record in records] == pytest.approx(losses, rel=1e-4)
    assert losses[-1] < losses[0] / 2
    assert [record["step"] for record in records] == list(range(1, STEPS + 1))
    spans = Topology(tuple((one.start, one.workers) for one in starts))
    expected = verify(plan, 12, [Topology(((0, 1),)), spans], STEPS).hashes
    assert [word for record in records for word in record["sample_hashes"]] == list(expected)


def _next(heard: "queue.Queue[RunEvent]") -> RunEvent | None:
    try:
        return heard.get(timeout=1.0)
    except queue.Empty:
        return None
