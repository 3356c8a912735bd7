"""Environment variables of a service's processes, which Ray Serve reads when it is imported."""

import os
from collections.abc import Mapping
from typing import Any

from raylens.ports import free_port
from raylens.serve.config import ServiceConfig

__all__ = ["METRICS_SECONDS", "actor_options", "environment", "haproxy_ports"]

METRICS_SECONDS = "1"
"""Period of the replicas' reports to the autoscaler."""
HAPROXY_PORTS = {"RAY_SERVE_HAPROXY_METRICS_PORT": 9101, "RAY_SERVE_HAPROXY_STATS_PORT": 8404}
"""Ports of HAProxy beside the service's, with Ray's defaults."""


def environment(proxy: str = "haproxy") -> dict[str, str]:
    """Return the variables of the service's processes, Ray Serve's own among them.

    Ray Serve logs only to files, ``<session>/logs/serve/``. Replicas report their load every second; the default of ten
    seconds would be most of the time until a step in the load has its replicas. A gateway that stops waits two seconds,
    not thirty, until the proxies know.

    Each process has one event loop for Ray Serve and for raylens, and processes call each other by gRPC, which takes a
    third less processor time per request. Long work is done in threads: a replica decodes images, tokenises texts and
    computes towers there, and a gateway encodes large answers there.
    """
    return {
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
        "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
        "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(2**31 - 1),  # the API's limit on bodies bounds messages
        "RAY_SERVE_LOG_TO_STDERR": "0",
        # For each of three checks: with the default of 5 s, a process on a busy machine would be restarted endlessly.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
        "RAY_SERVE_ENABLE_HA_PROXY": "1" if proxy == "haproxy" else "0",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
        "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": METRICS_SECONDS,
    }


def haproxy_ports() -> dict[str, str]:
    """Return variables that give HAProxy free ports for its metrics and statistics.

    Without them a second service on this machine would not start, because HAProxy exits if one of its ports is taken.
    A port that the user chose stays, and so does Ray's default where it is free.
    """
    return {name: os.environ.get(name) or str(free_port(default)) for name, default in HAPROXY_PORTS.items()}


def actor_options(config: ServiceConfig, inherited: Mapping[str, str]) -> dict[str, Any]:
    """Return Ray's options of an actor that give it the variables of `environment`.

    Ray starts processes in advance, but only for actors without a runtime environment; an actor with one starts a new
    process, seconds later. There is none, therefore, where the processes inherit all variables.

    Args:
        config: the settings of the service.
        inherited: variables that Ray, and so all of its processes, were started with.
    """
    missing = {name: value for name, value in environment(config.proxy).items() if inherited.get(name) != value}
    return {"runtime_env": {"env_vars": missing}} if missing else {}
