"""Deploying a service's file on a running cluster, until the service is ready or fails."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from raylens.cluster import last_line
from raylens.cluster.jobs import Jobs
from raylens.config import load_yaml
from raylens.errors import ConfigError, ServingError

__all__ = ["deploy", "undeploy"]

PATH = "/api/serve/applications/"
POLL_SECONDS = 1.0
FAILED_STATES = ("DEPLOY_FAILED", "UNHEALTHY")


def deploy(jobs: Jobs, file: Path, timeout: float, say: Callable[[str], None]) -> str:
    """Deploy a file of `raylens serve build` on a cluster; return the service's URL when its replicas run.

    Applications that the file does not name are removed. Where nothing changed, nothing happens.

    Raises:
        ConfigError: the file is no such file.
        ClusterError: the cluster does not answer, or rejects the file.
        ServingError: a replica fails to start, or the service does not run after ``timeout`` seconds.
    """
    tree = _read(file)
    jobs.put(PATH, tree)
    reported, end = "", time.monotonic() + timeout
    names = [application["name"] for application in tree["applications"]]
    while True:
        applications = jobs.read(PATH).get("applications", {})
        states = {name: applications.get(name, {"status": "NOT_STARTED"}) for name in names}
        for name, state in states.items():
            if state["status"] in FAILED_STATES:
                raise ServingError(f"{name} on {jobs} is {state['status']}: {_reason(state)}")
        progress = ", ".join(f"{name} is {state['status']}" for name, state in states.items())
        if all(state["status"] == "RUNNING" for state in states.values()):
            options = tree.get("http_options") or {}
            return f"http://{options.get('host', '127.0.0.1')}:{options.get('port', 8000)}"
        if progress != reported:
            say(progress)
            reported = progress
        if time.monotonic() >= end:
            raise ServingError(f"{progress} after {timeout:.0f} s: {'; '.join(map(_reason, states.values()))}")
        time.sleep(POLL_SECONDS)


def undeploy(jobs: Jobs) -> None:
    """Remove all applications that the cluster serves.

    Raises:
        ClusterError: the cluster does not answer.
    """
    jobs.delete(PATH)


def _read(file: Path) -> dict[str, Any]:
    try:
        tree = load_yaml(file.read_text(encoding="utf-8"), str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {file}: {error}; `raylens serve build` writes such a file") from None
    applications = tree.get("applications")
    named = isinstance(applications, list) and all(
        isinstance(entry, dict) and "name" in entry for entry in applications
    )
    if not applications or not named:
        raise ConfigError(f"{file} has no applications: `raylens serve build` writes a file that has")
    return tree


def _reason(state: dict[str, Any]) -> str:
    """Return the last line that is not empty of the application's and its deployments' messages."""
    deployments = state.get("deployments", {}).values()
    messages = [state.get("message", ""), *(deployment.get("message", "") for deployment in deployments)]
    return last_line("\n".join(messages), "no reason given; the replicas may be waiting for resources")[:500]
