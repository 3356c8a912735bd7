"""What must be true before anything is deployed."""

import errno
import socket
from collections.abc import Mapping

import ray
from ray import serve

from raylens.capacity import ResourceRequest, lasting_shortage, placement
from raylens.errors import ServingError
from raylens.placement import GROUP_LABEL
from raylens.serve.config import ServiceConfig, TowerConfig
from raylens.serve.deploy.holder import holder_of

__all__ = ["check_port", "check_ray"]


def check_ray(config: ServiceConfig) -> None:
    """Is there a Ray with room, and without another service?

    Raises:
        ServingError: no; the message says what to do.
    """
    if not ray.is_initialized():
        raise ServingError("Ray is not running in this process: call ray.init() first")
    if serve.status().proxies:
        raise ServingError("Ray Serve runs on this cluster already: shut that service down, or use another cluster")
    requests = _requests(config, placement().selector("serve"))
    found = lasting_shortage(requests, lambda _: None)
    if found is None:
        return
    group = requests[0].selector.get(GROUP_LABEL)
    who = f"nodes of group {group} have" if group else "the cluster has"
    if found.resource is None:
        each = ", ".join(f"{request.what} {request.count} x {_bundle(request)}" for request in found.requests)
        raise ServingError(
            f"replicas do not fit, each on one node: {each}; {who} room for {found.most:g} of {found.wanted:g}: ask "
            "for less, or for larger nodes"
        )
    what = {"CPU": "cpus", "GPU": "gpus"}[found.resource]
    parts = ", ".join(f"{one.model}: {_need(one.text, what)} + {_need(one.image, what)}" for one in config.models)
    raise ServingError(
        f"the text and image replicas need {found.wanted:g} {found.resource}s ({parts}), {who} {found.most:g}: ask "
        "for less, or start Ray with more"
    )


def _requests(config: ServiceConfig, selector: Mapping[str, str]) -> list[ResourceRequest]:
    return [
        ResourceRequest(f"{model.model} ({name})", tower.min_replicas, {"CPU": tower.cpus, "GPU": tower.gpus}, selector)
        for model in config.models
        for name, tower in (("text", model.text), ("image", model.image))
    ]


def _bundle(request: ResourceRequest) -> str:
    return " and ".join(f"{size:g} {name}s" for name, size in request.each.items() if size)


def _need(tower: TowerConfig, what: str) -> str:
    return f"{tower.min_replicas} x {getattr(tower, what):g}"


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
        holder = holder_of(port) if error.errno == errno.EADDRINUSE else None
        stop = f"{holder} holds it: stop that" if holder else "stop what holds it (ss -ltnp shows it)"
        raise ServingError(
            f"cannot listen on {host} port {port} ({error.strerror or error}): {stop} or choose another with port"
        ) from None
