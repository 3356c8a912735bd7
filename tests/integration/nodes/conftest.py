"""A Ray cluster of several raylets, started by the process that the tests run in.

Ray keeps the authentication mode of the first cluster that a process talks to: the other tests, whose clusters ask for
a token, cannot share a process with these. `make test` gives each file here one of its own, and plain `pytest` leaves
this folder out (`norecursedirs`).
"""

import contextlib
from collections.abc import Iterator

import psutil
import pytest
from ray.cluster_utils import Cluster

from tests.integration.nodes.monkey import NODE

HEAD = NODE | {"num_cpus": 1, "include_dashboard": False}
"""With no room for two workers: they are where they can be killed with their node."""


@pytest.fixture
def raylets(monkeypatch: pytest.MonkeyPatch, s3_bucket: str) -> Iterator[Cluster]:
    """A head, to which nodes are added; nothing of it is left at the end."""
    del s3_bucket  # only that its credentials are there when the processes begin
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    before = set(psutil.pids())
    cluster = Cluster(initialize_head=True, head_node_args=HEAD)
    yield cluster
    cluster.shutdown()
    # Of those whose parents were killed as well.
    _, alive = psutil.wait_procs(_of_ray(before), timeout=60)
    assert not [" ".join(process.cmdline()) for process in alive]


def _of_ray(before: set[int]) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            command = " ".join(process.cmdline())
            if process.pid not in before and ("ray::" in command or "/ray/" in command or "driver.py" in command):
                found.append(process)
    return found
