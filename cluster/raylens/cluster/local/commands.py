"""The commands and variables that start one node of a cluster on this machine."""

import os
import sys
from pathlib import Path

from raylens.cluster.niceness import WORKER_NICENESS, worker_niceness
from raylens.config import Node
from raylens.ports import free_port

__all__ = ["NodeShape", "environment", "head_command", "node_command"]


class NodeShape(Node):
    """The resources that a node declares, whether or not the machine has them."""

    cpus: int = 2
    gpus: int = 0
    store_bytes: int = 500_000_000
    """Bytes of shared memory for Ray's objects."""
    labels: dict[str, str] = {}  # noqa: RUF012 (pydantic copies it)


def head_command(shape: NodeShape, temporary: Path, port: int, dashboard_port: int) -> list[str]:
    """Return the command of the first node, which also has the dashboard with the Jobs API, on loopback alone."""
    return [
        *_ray("--head", *_shape(shape)),
        f"--port={port}",
        f"--temp-dir={temporary}",
        "--include-dashboard=true",
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={dashboard_port}",
        f"--ray-client-server-port={free_port()}",
        "--disable-usage-stats",
    ]


def node_command(shape: NodeShape, address: str) -> list[str]:
    """Return the command of another node, which joins the head at ``address``."""
    return _ray(f"--address={address}", *_shape(shape))


def environment(token_file: Path) -> dict[str, str]:
    """Return the variables of the nodes and of all jobs: those of this process, and what raylens needs.

    Variables that name another cluster are left out, and the token is only named by its file, because processes show
    their variables to others.

    Raises:
        ConfigError: ``RAYLENS_NICENESS`` is not a niceness.
    """
    unwanted = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN", "RAY_JOB_CONFIG_JSON_ENV_VAR", "PYTHONPATH")
    own = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file),
        # A run answers SIGINT by saving a checkpoint. By default Ray would kill it 3 seconds later.
        "RAY_JOB_STOP_SIGNAL": "SIGINT",
        "RAY_JOB_STOP_WAIT_TIME_S": "30",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        WORKER_NICENESS: worker_niceness(),
        # There is no other node to which the work of a stopping node could move.
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        # Jobs call `python`, which must be the one in which raylens is installed.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
    }
    inherited = {name: value for name, value in os.environ.items() if name not in unwanted}
    return {**inherited, **own}


def _ray(*words: str) -> list[str]:
    # The kernel chooses ports that Ray would fix, because several nodes share the machine.
    anywhere = [f"--{name}=0" for name in ("min-worker-port", "max-worker-port", "dashboard-agent-listen-port")]
    return [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *anywhere, *words]


def _shape(shape: NodeShape) -> list[str]:
    labels = ",".join(f"{name}={value}" for name, value in shape.labels.items())
    return [
        f"--num-cpus={shape.cpus}",
        f"--num-gpus={shape.gpus}",
        f"--object-store-memory={shape.store_bytes}",
        *([f"--labels={labels}"] if labels else []),
    ]
