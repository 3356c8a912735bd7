"""Waiting until a service is ready, and reporting how its start proceeds."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx
from ray import serve
from ray.serve.schema import ApplicationStatus

from raylens.errors import ServingError

__all__ = ["base_url", "wait_until_ready"]

POLL_S = 0.1
MAX_CHARS = 1000
ANSI = re.compile(r"\x1b\[[0-9;]*m")
EXCEPTION = re.compile(r"^[A-Za-z_][\w.]*(?:Error|Exception): ", re.MULTILINE)


def base_url(host: str, port: int) -> str:
    """Return the URL at which this machine reaches a service that listens on ``host``."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (compared, not listened on)
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


def wait_until_ready(url: str, app: str, timeout_s: float, on_progress: Callable[[str], None] = lambda _: None) -> None:
    """Wait until ``/readyz`` answers 200; report to ``on_progress`` which deployments are up.

    Raises:
        ServingError: a deployment failed, with its own error; or the time is up, with the last known reason.
    """
    deadline, reported = time.monotonic() + timeout_s, ""
    while True:
        status = serve.status().applications[app]
        if (now := _progress(status.deployments)) != reported:
            on_progress(now)
            reported = now
        messages = [deployment.message for deployment in status.deployments.values() if deployment.message]
        if status.status == ApplicationStatus.DEPLOY_FAILED:
            raise ServingError(f"a replica failed to start: {_last_exception(messages or [status.message])}")
        reason = _readiness(url) if status.status == ApplicationStatus.RUNNING else "; ".join(messages)
        if reason is None:
            return
        if time.monotonic() > deadline:
            raise ServingError(
                f"the service was not ready after {timeout_s:g} s ({reason or status.status.value}): raise "
                "startup_timeout_s if the weights take long to read"
            )
        time.sleep(POLL_S)


def _progress(deployments: Mapping[str, Any]) -> str:
    """Return a line that says which deployments have a running replica, and which are starting."""
    states = {name: deployment.replica_states for name, deployment in deployments.items()}
    up = [name for name, counts in states.items() if counts.get("RUNNING")]
    starting = [name for name in states if name not in up]
    parts = [f"up: {', '.join(up)}"] if up else []
    parts += [f"starting and loading: {', '.join(starting)}"] if starting else ["checking that all of them embed"]
    return "; ".join(parts)


def _readiness(url: str) -> str | None:
    """Return None if the service is ready, else its answer."""
    try:
        answer = httpx.get(f"{url}/readyz", timeout=30)
    except httpx.HTTPError as error:
        return f"{url}/readyz: {error}"
    return None if answer.status_code == httpx.codes.OK else answer.text


def _last_exception(messages: Sequence[str]) -> str:
    """Return the last exception of Ray Serve's report, which nests several traces, without the traces."""
    text = ANSI.sub("", "\n".join(messages)).strip()
    raised = list(EXCEPTION.finditer(text))
    return text[raised[-1].start() :].removeprefix("raylens.errors.") if raised else text[-MAX_CHARS:]
