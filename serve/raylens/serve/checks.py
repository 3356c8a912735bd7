"""What must be true before anything is deployed."""

import socket

import ray
from ray import serve

from raylens.errors import ServingError

__all__ = ["check_port", "check_ray"]


def check_ray(replicas: int, cpus_per_replica: float) -> None:
    """Is there a Ray with room, and without another service?

    Raises:
        ServingError: no; the message says what to do.
    """
    if not ray.is_initialized():
        raise ServingError("Ray is not running in this process: call ray.init() first")
    if serve.status().proxies:
        raise ServingError("Ray Serve runs on this cluster already: shut that service down, or use another cluster")
    if replicas < 1 or cpus_per_replica <= 0:
        raise ServingError(f"replicas = {replicas}, cpus_per_replica = {cpus_per_replica}: both must be positive")
    asked, there = replicas * cpus_per_replica, ray.cluster_resources().get("CPU", 0.0)
    if asked > there:
        raise ServingError(
            f"replicas = {replicas} with cpus_per_replica = {cpus_per_replica} need {asked:g} CPUs, the cluster has "
            f"{there:g}: ask for less, or start Ray with more"
        )


def check_port(host: str, port: int) -> None:
    """Can the service listen there? Asked before anything starts: Ray Serve would restart its proxy for ever.

    Raises:
        ServingError: no; the message names the port.
    """
    if not 0 < port < 65536:
        raise ServingError(f"port = {port}: choose one from 1 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise ServingError(
            f"cannot listen on {host} port {port} ({error.strerror or error}): stop what holds it (ss -ltnp shows it) "
            "or choose another with port"
        ) from None
