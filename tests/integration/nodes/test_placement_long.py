"""Placement on clusters that grow, with Ray's own autoscaler and without, and of replicas: a cluster for each test."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from raylens.capacity import autoscaler
from raylens.cluster import session
from raylens.config import validated
from raylens.errors import ClusterError, ServingError
from raylens.messages import quiet
from raylens.placement import Group, GroupSize, node_labels
from raylens.ports import free_port
from raylens.registry import Registry
from raylens.serve import ServiceConfig, serve_service
from raylens.storage import Store
from raylens.train import train
from raylens.train.loop.events import RunEvent, Warned
from tests.helpers.said import Said, forbidden
from tests.helpers.serving_app import random_bundle
from tests.integration.nodes.autoscaled import autoscaled
from tests.integration.nodes.conftest import HEAD, raylets_with
from tests.integration.nodes.monkey import NODE
from tests.integration.nodes.test_elastic import config_of
from tests.integration.nodes.test_placement import GROUPS, group_of, smaller
from tests.integration.nodes.test_serve_nodes import nodes_of

pytestmark = pytest.mark.slow


def test_elsewhere_nodes_may_join_for_a_while(
    tmp_path: Path, make_shards: Callable[..., Store], raylets: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster of no groups: 1 CPU of the head and 2 of a node are one too few for three workers and data."""
    monkeypatch.setattr(autoscaler, "PATIENCE_SECONDS", 3.0)
    raylets.add_node(**NODE)
    config = smaller(config_of(tmp_path, make_shards(40), "placed", 3))
    said = Said()
    with session(raylets.address):
        with pytest.raises(ClusterError, match=r"need 4 CPUs \(1 of them to read data\), the cluster has 3 \(.*: 2"):
            train(config, say=said)
        [waits] = said.texts
        assert waits.startswith("no room yet for 3 x training worker and 1 x decoding task: ")
        assert " 3 s " in waits
        with pytest.raises(ClusterError, match="need 1 GPUs, the cluster has 0"):
            train(smaller(config, resources={"workers": 1, "gpus_per_worker": 1}), say=said)
        monkeypatch.setattr(autoscaler, "PATIENCE_SECONDS", 60.0)

        def say(text: str) -> None:
            if text.startswith("no room yet"):
                raylets.add_node(**NODE)

        assert train(config, say=say).steps == 8


def node_type(cpus: int, labels: dict[str, str], most: int) -> dict[str, Any]:
    resources = {"CPU": cpus, "object_store_memory": NODE["object_store_memory"]}
    return {"resources": resources, "labels": labels, "node_config": {}, "min_workers": 0, "max_workers": most}


def test_groups_without_a_node_get_one_when_a_run_asks(
    tmp_path: Path, make_shards: Callable[..., Store], open_to_all: None
) -> None:
    """Ray's own autoscaler, from nothing but the head; then a run that is larger than the groups ever become."""
    types = {group: node_type(2, node_labels(group, GROUPS), 1) for group in GROUPS}
    config = smaller(config_of(tmp_path, make_shards(40), "placed", 2))
    warned: list[str] = []

    def on_event(event: RunEvent) -> None:
        if isinstance(event, Warned):
            warned.append(event.text)

    with autoscaled(tmp_path, node_labels("head", GROUPS), types) as address, session(address):
        assert [row["Resources"].get("CPU") for row in ray.nodes()] == [None]
        assert train(config, say=quiet, on_event=on_event).steps == 8
        groups = [row["Labels"]["raylens.io/group"] for row in ray.nodes() if row["Alive"]]
        assert sorted(groups) == ["decode", "head", "train"]
        with pytest.raises(ClusterError, match=r"need 3 CPUs, nodes of group train have 2"):
            train(smaller(config, resources={"workers": 3}), say=forbidden)
    assert all(text.startswith("waiting for nodes: ") for text in warned)


def test_an_autoscaler_that_names_no_groups_is_asked(
    tmp_path: Path, make_shards: Callable[..., Store], open_to_all: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its limits are known to itself alone, and it says within seconds that a run is beyond them."""
    monkeypatch.setattr(autoscaler, "PATIENCE_SECONDS", 300.0)
    config = smaller(config_of(tmp_path, make_shards(40), "placed", 2))
    said = Said()
    with autoscaled(tmp_path, {}, {"any": node_type(2, {}, 2)}) as address, session(address):
        with pytest.raises(ClusterError, match="need 1 GPUs, the cluster has 0"):
            train(smaller(config, resources={"workers": 1, "gpus_per_worker": 1}), say=said)
        assert train(config, say=said).steps == 8
    assert sum("no room yet" in text for text in said.texts) == 2


def test_replicas_are_on_the_nodes_that_serve(tmp_path: Path, open_to_all: None) -> None:
    """And no more of them than have room there, whatever else the cluster has."""
    groups: dict[Group, GroupSize] = {"decode": GroupSize(1, 2), "serve": GroupSize(1, 2)}
    Registry(str(tmp_path)).publish("tiny", random_bundle())

    def service(replicas: int) -> ServiceConfig:
        tower = {"min_replicas": replicas, "max_replicas": replicas, "cpus": 1}
        models = [{"model": "tiny", "precision": "fp32", "text": tower, "image": tower}]
        return validated(ServiceConfig, {"models": models, "registry": str(tmp_path), "port": free_port()})

    with raylets_with(HEAD | {"num_cpus": 0, "labels": node_labels("head", groups)}) as cluster:
        for group in groups:
            cluster.add_node(**NODE, labels=node_labels(group, groups))
        with session(cluster.address):
            with pytest.raises(
                ServingError, match=r"need 4 CPUs \(tiny: 2 x 1 \+ 2 x 1\), nodes of group serve have 2"
            ):
                serve_service(service(2))
            with serve_service(service(1)):
                places = [group_of(node) for name in ("tiny-text", "tiny-image", "Gateway") for node in nodes_of(name)]
    assert places == ["serve"] * 3
