"""Where work goes on a cluster whose nodes are of groups, and what is said of work that there is no room for."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pytest
import ray
from ray.cluster_utils import Cluster

from raylens.capacity import placement
from raylens.cluster import session
from raylens.config import RunConfig, validated
from raylens.config.placement import Group, GroupSize, node_labels
from raylens.data.block import BlockMaker
from raylens.data.stream import execution_options, ray_map, training_stream
from raylens.errors import ClusterError
from raylens.messages import quiet
from raylens.storage import Store
from raylens.train import train
from raylens.train.loop.events import Metrics, RunEvent, Started
from raylens.train.run.prepare import prepare
from tests.helpers.said import Said, forbidden
from tests.integration.nodes.conftest import HEAD, raylets_with
from tests.integration.nodes.monkey import NODE
from tests.integration.nodes.test_elastic import config_of

GROUPS: dict[Group, GroupSize] = {"decode": GroupSize(2, 2), "train": GroupSize(1, 2)}


@pytest.fixture(scope="module")
def grouped(open_to_all: None) -> Iterator[Cluster]:
    """A head without CPUs, a node that decodes and one that trains, of 2 CPUs each."""
    with raylets_with(HEAD | {"num_cpus": 0, "labels": node_labels("head", GROUPS)}) as cluster:
        for group in GROUPS:
            cluster.add_node(**NODE, labels=node_labels(group, GROUPS))
        yield cluster


def group_of(node_id: str) -> str:
    return next(str(row["Labels"]["raylens.io/group"]) for row in ray.nodes() if row["NodeID"] == node_id)


def raylets_of(process: str, cluster: Cluster) -> list[str]:
    """The groups of the nodes on which processes of this name are."""
    found = []
    for node in [cluster.head_node, *cluster.worker_nodes]:
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        for child in raylet.children(recursive=True):
            with contextlib.suppress(psutil.Error):  # gone meanwhile
                found += [group_of(node.node_id)] if process in " ".join(child.cmdline()) else []
    return found


def smaller(config: RunConfig, **changes: Any) -> RunConfig:
    return validated(RunConfig, config.model_dump(mode="json") | {"length": {"samples_seen": 12 * 8}} | changes)


def node_here(item: dict[str, Any]) -> pa.Table:
    return pa.table({"item": [item["item"]], "node": [ray.get_runtime_context().get_node_id()]})


class Located(BlockMaker):
    """Says where a block was made, in place of how long it took."""

    def make(self, start: int, stop: int) -> dict[str, np.ndarray[Any, Any]]:
        block = super().make(start, stop)
        here = int(ray.get_runtime_context().get_node_id()[:12], 16)
        return block | {"read_seconds": np.full(stop - start, float(here))}


def test_decoding_and_training_are_on_nodes_of_their_own(
    tmp_path: Path, make_shards: Callable[..., Store], grouped: Cluster
) -> None:
    """Two workers take all CPUs of the node that trains, and the head has none."""
    config = smaller(config_of(tmp_path, make_shards(40), "placed", 2))
    seen: list[list[str]] = []
    said = Said()

    def on_event(event: RunEvent) -> None:
        if isinstance(event, Started | Metrics):
            seen.append(raylets_of("RayTrainWorker", grouped))

    with session(grouped.address):
        result = train(config, say=said, on_event=on_event)
        tables = list(ray_map([{"item": number} for number in range(6)], node_here))
        nodes = [node for table in tables for node in table["node"].to_pylist()]
        assert {group_of(node) for node in nodes} == {"decode"}
        assert set(_made_on(config)) == {"decode"}
    assert result.steps == 8
    assert "warning" not in [severity for severity, _ in said.lines]
    assert seen[0] == ["train", "train"]


def _made_on(config: RunConfig) -> list[str]:
    """The groups of the nodes that made each batch of the run's data."""
    prepared = prepare(config, quiet)
    maker = Located(
        plan=prepared.plan,
        homes=tuple(manifest.home for manifest in prepared.manifests),
        run_uri=prepared.store.uri,
        preprocess=prepared.preprocess,
        tokenizer_json=prepared.tokenizer.to_json(),
        context=config.model.text.context,
        crop_min_scale=config.data.crop_min_scale,
        max_pixels=config.data.max_pixels,
    )
    stream = training_stream(maker, start=0, stop=96, worker_batch=6)
    stream.context.execution_options = execution_options(placement().selector("decode"))
    groups = {int(row["NodeID"][:12], 16): row["Labels"]["raylens.io/group"] for row in ray.nodes()}
    batches = stream.iter_batches(batch_size=None, batch_format="numpy")
    return [groups[int(batch["read_seconds"][0])] for batch in batches]


def test_a_run_that_never_fits_says_which_resource_is_missing(
    tmp_path: Path, make_shards: Callable[..., Store], grouped: Cluster
) -> None:
    """The head says how large each group may become, so nothing is waited for."""
    config = config_of(tmp_path, make_shards(40), "placed", 2)
    with session(grouped.address):
        with pytest.raises(ClusterError, match=r"need 2 GPUs, nodes of group train have 0: lower scale.workers"):
            train(smaller(config, scale={"workers": 2, "gpus_per_worker": 1}), say=forbidden)
        with pytest.raises(ClusterError, match=r"need 3 CPUs, nodes of group train have 2: lower scale.workers"):
            train(smaller(config, scale={"workers": 3}), say=forbidden)
