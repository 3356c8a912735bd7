"""A pod that must go: the command of its manifest, on a node of a real cluster."""

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ray

from raylens.cluster.description import ClusterSpec
from raylens.cluster.kuberay import render
from raylens.config import validated
from raylens.ports import free_port
from tests.integration.nodes.conftest import raylets_with
from tests.integration.nodes.monkey import NODE

HEAD = NODE | {"num_cpus": 0, "include_dashboard": False}
SPEC: dict[str, Any] = {
    "name": "leaving",
    "image": "example.org/raylens:1",
    "head": {"cpus": 1, "memory": "4Gi"},
    "train": {"cpus": 1, "memory": "4Gi", "grace_s": 610},
}
PATIENCE_S = 120
"""Far less than what the command has, and waits for where something still runs."""


class Work:
    """Holds the node."""

    def here(self) -> str:
        return str(ray.get_runtime_context().get_node_id())


def last_words(port: int) -> str:
    """As the pod's manifest has them; here several nodes share one address, so each has an agent's port of its own."""
    group = render(validated(ClusterSpec, SPEC), "cluster")[-1]["spec"]["workerGroupSpecs"][0]
    command: str = group["template"]["spec"]["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1]
    assert "/127.0.0.1/52365)" in command
    return command.replace("/127.0.0.1/52365)", f"/127.0.0.1/{port})")


def ray_of_one_node(folder: Path, node: str) -> Path:
    """A `ray` that knows its node, which a pod's address tells; and that stops no other cluster of this machine."""
    real = Path(sys.executable).with_name("ray")
    script = folder / "ray"
    drain = f'drain-node) shift; exec {real} drain-node --node-id {node} "$@";;'
    script.write_text(f'#!/bin/bash\ncase "$1" in {drain} stop) echo "$@" > {folder}/stopped;; *) exit 9;; esac\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return folder / "stopped"


def test_work_stays_until_it_has_left_and_the_node_ends_as_soon_as_it_is_idle(
    tmp_path: Path, open_to_all: None
) -> None:
    port = free_port()
    with raylets_with(HEAD) as cluster:
        cluster.add_node(**NODE, dashboard_agent_listen_port=port)
        ray.init(address=cluster.address, log_to_driver=False)
        try:
            work = ray.remote(Work).options(num_cpus=1).remote()
            node = ray.get(work.here.remote())
            stopped = ray_of_one_node(tmp_path, node)
            environment = os.environ | {"RAY_ADDRESS": cluster.address, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
            leaving = subprocess.Popen(["/bin/bash", "-c", last_words(port)], env=environment)
            with pytest.raises(subprocess.TimeoutExpired):
                leaving.wait(15)
            assert ray.get(work.here.remote()) == node
            ray.kill(work)
            assert leaving.wait(PATIENCE_S) == 0
            assert stopped.read_text().split() == ["stop", "--grace-period", "5"]
            [found] = [one for one in ray.nodes() if one["NodeID"] == node]
            assert not found["Alive"]
        finally:
            ray.shutdown()
