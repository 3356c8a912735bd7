"""A service over several raylets loses a node of a replica under load, and only what was in flight there."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from ray.cluster_utils import Cluster
from ray.serve.context import _get_global_client

from raylens.cluster import session
from raylens.config import validated
from raylens.ports import free_port
from raylens.registry import Registry
from raylens.serve import RunningService, ServiceConfig, serve_service
from tests.helpers.serving import Callers
from tests.helpers.serving_app import random_bundle
from tests.integration.nodes.monkey import NODE

CALLERS = 4
# Of 2 CPUs a node and one of the head: each node has room for one text replica, and the head for none.
TEXT = {"min_replicas": 2, "max_replicas": 2, "cpus": 1.5}
IMAGE = {"cpus": 0.5}

pytestmark = pytest.mark.slow


def nodes_of(deployment: str) -> list[str]:
    client = _get_global_client()
    assert client is not None
    details: Any = client.get_serve_details()
    replicas = details["applications"]["raylens"]["deployments"][deployment]["replicas"]
    return [one["node_id"] for one in replicas if one["state"] == "RUNNING"]


async def loses(service: RunningService, cluster: Cluster, victim: Any) -> list[httpx.Response]:
    async with Callers(service, None, "tiny", callers=CALLERS, texts=200) as load:
        await load.until(lambda: len(load.answers) > 2 * CALLERS, "the first answers")
        cluster.remove_node(victim, allow_graceful=False)
        before = len(load.answers)
        await load.until(lambda: len(load.answers) > before + 8 * CALLERS, "answers after the loss")
    return load.answers


def test_a_node_that_is_lost_under_load_costs_at_most_what_it_had(raylets: Cluster, tmp_path: Path) -> None:
    nodes = [raylets.add_node(**NODE) for _ in range(2)]
    Registry(str(tmp_path)).publish("tiny", random_bundle())
    tree = {
        "models": [{"model": "tiny", "precision": "fp32", "text": TEXT, "image": IMAGE}],
        "registry": str(tmp_path),
        "port": free_port(),
        "limits": {"startup_timeout_s": 180},
    }
    with session(raylets.address), serve_service(validated(ServiceConfig, tree)) as service:
        assert len(set(nodes_of("tiny-text"))) == 2
        [gateway] = nodes_of("Gateway")
        victim = next(node for node in nodes if node.node_id != gateway)
        answers = asyncio.run(loses(service, raylets, victim))
    lost = [answer for answer in answers if answer.status_code != 200]
    assert len(lost) <= CALLERS
    assert {answer.json()["error"]["code"] for answer in lost} <= {"unavailable"}
    assert {answer.status_code for answer in answers[-CALLERS:]} == {200}
