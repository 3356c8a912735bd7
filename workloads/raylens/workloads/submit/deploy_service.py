"""A service's file brought to a running cluster: accepted, started, and answering, or the reason why not."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from raylens.cluster.jobs.api import Jobs
from raylens.cluster.text import last_line
from raylens.config import load_yaml
from raylens.errors import ConfigError, ServingError

__all__ = ["deploy", "undeploy"]

PATH = "/api/serve/applications/"
POLL_SECONDS = 1.0
FAILED_STATES = ("DEPLOY_FAILED", "UNHEALTHY")


def deploy(jobs: Jobs, file: Path, timeout: float, say: Callable[[str], None]) -> str:
    """Make a cluster serve what a file of `raylens serve build` says; its URL, when all replicas embed.

    What the cluster served before and the file does not name ends. Where nothing changed, nothing happens.

    Raises:
        ConfigError: it is no such file.
        ClusterError: the cluster does not answer, or does not take it.
        ServingError: a replica fails to start, or nothing runs ``timeout`` seconds later.
    """
    tree = _read(file)
    jobs.put(PATH, tree)
    said, end = "", time.monotonic() + timeout
    names = [one["name"] for one in tree["applications"]]
    while True:
        applications = jobs.read(PATH).get("applications", {})
        states = {name: applications.get(name, {"status": "NOT_STARTED"}) for name in names}
        for name, state in states.items():
            if state["status"] in FAILED_STATES:
                raise ServingError(f"{name} on {jobs} is {state['status']}: {_reason(state)}")
        told = ", ".join(f"{name} is {state['status']}" for name, state in states.items())
        if all(state["status"] == "RUNNING" for state in states.values()):
            options = tree.get("http_options") or {}
            return f"http://{options.get('host', '127.0.0.1')}:{options.get('port', 8000)}"
        if told != said:
            say(told)
            said = told
        if time.monotonic() >= end:
            raise ServingError(f"{told} after {timeout:.0f} s: {'; '.join(map(_reason, states.values()))}")
        time.sleep(POLL_SECONDS)


def undeploy(jobs: Jobs) -> None:
    """End all that the cluster serves.

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
    named = isinstance(applications, list) and all(isinstance(one, dict) and "name" in one for one in applications)
    if not applications or not named:
        raise ConfigError(f"{file} has no applications: `raylens serve build` writes a file that has")
    return tree


def _reason(state: dict[str, Any]) -> str:
    """The last line that says something, of the application's or of a deployment's own message."""
    messages = [state.get("message", ""), *(one.get("message", "") for one in state.get("deployments", {}).values())]
    return last_line("\n".join(messages), "no reason given; the replicas may be waiting for resources")[:500]
