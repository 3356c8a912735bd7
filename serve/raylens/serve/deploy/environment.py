"""The variables of a service's processes, which Ray Serve reads when it is imported."""

import os
from collections.abc import Mapping
from typing import Any

from raylens.ports import free_port
from raylens.serve.config import ServiceConfig

__all__ = ["METRICS_SECONDS", "actor_options", "environment", "haproxy_ports"]

METRICS_SECONDS = "1"
HAPROXY_PORTS = {"RAY_SERVE_HAPROXY_METRICS_PORT": 9101, "RAY_SERVE_HAPROXY_STATS_PORT": 8404}
"""Where HAProxy listens beside the service, by Ray's defaults."""


def environment(proxy: str = "haproxy") -> dict[str, str]:
    """Of the service's processes, Ray Serve's own among them.

    Its log goes to files alone, ``<session>/logs/serve/``. Replicas report their load every second: by default every
    ten, which would be most of the time that a step in the load waits for its replicas. A gateway that leaves waits
    two seconds for the proxies to hear of it, and not thirty.

    Each process has one event loop for Ray Serve and for us, and they call each other by gRPC: a third less processor
    time a request. What would hold a loop for long is done in threads: images are decoded, texts tokenised and towers
    computed there in a replica, and large answers are encoded there in a gateway.
    """
    return {
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
        "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
        "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(2**31 - 1),  # the API's limit on bodies bounds messages
        "RAY_SERVE_LOG_TO_STDERR": "0",
        # Of three: on a busy machine five seconds are too few for a process to start, and it would be started for ever.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
        "RAY_SERVE_ENABLE_HA_PROXY": "1" if proxy == "haproxy" else "0",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
        "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": METRICS_SECONDS,
    }


def haproxy_ports() -> dict[str, str]:
    """Variables that keep HAProxy's other ports apart where several services run on this machine.

    Without them a second service would not start: HAProxy ends where one of its ports is taken. A port that the user
    chose stays, and so does Ray's default where it is free.
    """
    return {name: os.environ.get(name) or str(free_port(default)) for name, default in HAPROXY_PORTS.items()}


def actor_options(config: ServiceConfig, inherited: Mapping[str, str]) -> dict[str, Any]:
    """Ray's options of an actor of the service that give it the variables of `environment`.

    Ray has processes in reserve, started while others still import, but only for actors without a runtime environment;
    each actor with one starts a process anew, seconds later. So there is none where the processes inherit all.

    Args:
        config: the service.
        inherited: variables that Ray itself was started with, and all of its processes with it.
    """
    missing = {name: value for name, value in environment(config.proxy).items() if inherited.get(name) != value}
    return {"runtime_env": {"env_vars": missing}} if missing else {}
