"""Checks before a deployment: that Ray runs and has the resources, and that the port is free."""

import contextlib
import errno
import socket
from collections.abc import Mapping
from pathlib import Path

import ray
from ray import serve

from raylens.capacity import Ask, lasting_shortage, placement
from raylens.config.placement import GROUP_LABEL
from raylens.errors import ServingError
from raylens.serve.config import ServiceConfig, TowerConfig

__all__ = ["check_port", "check_ray", "port_holder"]

PROC = Path("/proc")
LISTENING = "0A"


def check_ray(config: ServiceConfig) -> None:
    """Check that Ray runs, can hold the replicas, and serves nothing else.

    Raises:
        ServingError: it does not; the message says what to do.
    """
    if not ray.is_initialized():
        raise ServingError("Ray is not running in this process: call ray.init() first")
    if serve.status().proxies:
        raise ServingError("Ray Serve already runs on this cluster: shut that service down, or use another cluster")
    asks = _asks(config, placement().selector("serve"))
    shortage = lasting_shortage(asks, lambda _: None)
    if shortage is None:
        return
    group = asks[0].selector.get(GROUP_LABEL)
    who = f"nodes of group {group} have" if group else "the cluster has"
    if shortage.resource is None:
        each = ", ".join(f"{ask.what} {ask.count} x {_bundle(ask)}" for ask in shortage.asks)
        raise ServingError(
            f"replicas do not fit, each on one node: {each}; {who} room for {shortage.most:g} of {shortage.wanted:g}: "
            "ask for less, or for larger nodes"
        )
    what = {"CPU": "cpus", "GPU": "gpus"}[shortage.resource]
    parts = ", ".join(
        f"{model.model}: {_need(model.text, what)} + {_need(model.image, what)}" for model in config.models
    )
    raise ServingError(
        f"the text and image replicas need {shortage.wanted:g} {shortage.resource}s ({parts}), {who} "
        f"{shortage.most:g}: ask for less, or start Ray with more"
    )


def _asks(config: ServiceConfig, selector: Mapping[str, str]) -> list[Ask]:
    return [
        Ask(f"{model.model} ({name})", tower.min_replicas, {"CPU": tower.cpus, "GPU": tower.gpus}, selector)
        for model in config.models
        for name, tower in (("text", model.text), ("image", model.image))
    ]


def _bundle(ask: Ask) -> str:
    return " and ".join(f"{size:g} {name}s" for name, size in ask.each.items() if size)


def _need(tower: TowerConfig, what: str) -> str:
    return f"{tower.min_replicas} x {getattr(tower, what):g}"


def check_port(host: str, port: int) -> None:
    """Check that the service can listen on the port, before Ray Serve would restart its proxy endlessly.

    Raises:
        ServingError: it cannot; the message names the port and, if known, its holder.
    """
    if not 0 < port < 65536:
        raise ServingError(f"port = {port}: choose one from 1 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        holder = port_holder(port) if error.errno == errno.EADDRINUSE else None
        stop = f"{holder} holds it: stop that" if holder else "stop what holds it (ss -ltnp shows it)"
        raise ServingError(
            f"cannot listen on {host} port {port} ({error.strerror or error}): {stop} or choose another with port"
        ) from None


def port_holder(port: int) -> str | None:
    """Return the process that listens on a port, such as ``process 4711 (haproxy)``.

    It is None where this cannot be seen: on a system without ``/proc``, or for another user's process.
    """
    inodes = {f"socket:[{inode}]" for table in ("tcp", "tcp6") for inode in _listening(PROC / "net" / table, port)}
    if not inodes:
        return None
    for process in PROC.iterdir():
        if not process.name.isdecimal():
            continue
        # A process may end meanwhile, and the files of other users' processes are not readable.
        with contextlib.suppress(OSError):
            if any(str(file.readlink()) in inodes for file in (process / "fd").iterdir()):
                return f"process {process.name} ({(process / 'comm').read_text().strip()})"
    return None


def _listening(table: Path, port: int) -> list[str]:
    try:
        rows = [line.split() for line in table.read_text().splitlines()[1:]]
    except OSError:
        return []
    return [row[9] for row in rows if row[3] == LISTENING and int(row[1].rpartition(":")[2], 16) == port]
