"""Stopping Ray Serve: requests that have begun are finished, and the port is free afterwards."""

import time
from collections.abc import Callable

import ray
from ray import serve

from raylens.errors import ServingError
from raylens.serve.deploy.checks import check_port

__all__ = ["controller_lives", "stop"]

POLL_S = 0.1
TIMEOUT_S = 30.0
CONTROLLER = {"name": "SERVE_CONTROLLER_ACTOR", "namespace": "serve"}


def stop(app: str, host: str, port: int) -> None:
    """Stop the application and Ray Serve.

    Raises:
        ServingError: something is left, on the cluster or at the port.
    """
    if app in serve.status().applications:
        # First, while the proxy still stands: `serve.shutdown` would cut the connections of begun requests.
        serve.delete(app)
    if controller_lives():
        # Without waiting: a call that the controller's end cuts off makes Ray print that the call has failed.
        ray.get(ray.get_actor(**CONTROLLER).graceful_shutdown.remote(wait=False))
        _until(lambda: not controller_lives(), "Ray Serve's controller still runs after the shutdown: restart Ray")
    serve.shutdown()  # only forgets the connection to the controller
    _until(lambda: _free(host, port), f"port {port} is still held after the shutdown: ss -ltnp shows by what")


def _until(condition: Callable[[], bool], complaint: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            raise ServingError(complaint)
        time.sleep(POLL_S)


def controller_lives() -> bool:
    """Is Ray Serve there, or about to be?"""
    try:
        ray.get_actor(**CONTROLLER)
    except ValueError:
        return False
    return True


def _free(host: str, port: int) -> bool:
    try:
        check_port(host, port)
    except ServingError:
        return False
    return True
