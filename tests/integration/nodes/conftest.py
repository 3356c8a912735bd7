"""A Ray cluster of several raylets, started by the process that the tests run in.

Ray keeps the authentication mode of the first cluster that a process talks to: the other tests, whose clusters ask for
a token, cannot share a process with these. `tests/run.py` gives each file here one of its own, and plain `pytest`
leaves this folder out (`norecursedirs`).
"""

import contextlib
import ctypes
import sys
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from ray.cluster_utils import Cluster

from tests.integration.nodes.monkey import NODE
from tests.shared_ray import S3_ENVIRONMENT

OURS = ("driver.py", "RayTrainWorker", "TrainController", "_Controller", "SplitCoordinator", "DriverChannel")
"""What a run starts and must end. Idle workers of Ray stay: they are the raylets', for whoever comes next."""
RAYS = ("ray::", "/ray/")
HEAD = NODE | {"num_cpus": 1, "include_dashboard": False}
"""With no room for two workers: they are where they can be killed with their node."""


PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture(scope="session", autouse=True)
def adoption() -> None:
    """What a killed process leaves behind becomes a child of this one, and is told from other programs' Ray."""
    if sys.platform == "linux":  # where Ray runs several nodes on one machine
        assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


@pytest.fixture(scope="module")
def open_to_all() -> Iterator[None]:
    """Clusters of this module ask for no token, and their processes have credentials for the object store."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (S3_ENVIRONMENT | {"RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0"}).items():
            patch.setenv(name, value)
        yield


@pytest.fixture
def raylets(open_to_all: None, s3_environment: None) -> Iterator[Cluster]:
    """A head, to which nodes are added; nothing of a run is left while it lives, and nothing of it at the end."""
    with raylets_with(HEAD) as cluster:
        yield cluster


@contextlib.contextmanager
def raylets_with(head: dict[str, Any]) -> Iterator[Cluster]:
    """A cluster by the arguments of its head."""
    before = set(psutil.pids())
    cluster = Cluster(initialize_head=True, head_node_args=head)
    yield cluster
    assert not survivors(before, OURS)
    cluster.shutdown()
    # Of those whose parents were killed as well.
    assert not survivors(before, (*RAYS, *OURS))


def survivors(before: set[int], names: tuple[str, ...], seconds: float = 60.0) -> list[str]:
    """Commands of processes that these tests started, that were not there before and are there to stay."""
    _, alive = psutil.wait_procs(_named(before, names), timeout=seconds)
    found = []
    for process in alive:
        with contextlib.suppress(psutil.Error):  # gone at last; and a worker that became idle has another name
            command = " ".join(process.cmdline())
            found += [command] if any(name in command for name in names) else []
    return found


def _named(before: set[int], names: tuple[str, ...]) -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            command = " ".join(process.cmdline())
            if process.pid not in before and any(name in command for name in names):
                found.append(process)
    return found
