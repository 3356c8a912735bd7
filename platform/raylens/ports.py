"""Free TCP ports of this machine."""

import random
import socket
from contextlib import suppress
from pathlib import Path

__all__ = ["free_port"]

EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
EPHEMERAL_BY_DEFAULT = (32768, 60999)
LOWEST = 20_000
"""The lowest port: below it are the fixed ports of programs, and those of Ray's workers (10002 to 19999)."""
DRAWS = 100


def free_port(wanted: int = 0) -> int:
    """Return a port that is free at the moment on every address of this machine.

    It lies outside the range from which the kernel assigns ports to connections (``ip_local_port_range``). A port of
    that range may be taken by any program's connection before the caller listens on it; a Ray cluster has hundreds.

    Args:
        wanted: the port to return if it is free.

    Raises:
        OSError: no port is free.
    """
    for port in filter(None, (wanted, *_outside())):
        with suppress(OSError):
            return _bound(port)
    return _bound(0)


def _bound(port: int) -> int:
    """Return the port if it can be bound; for 0, a port that the kernel chooses."""
    with socket.socket() as probe:
        probe.bind(("", port))
        return int(probe.getsockname()[1])


def _outside() -> list[int]:
    """Return some ports outside the kernel's range, in random order, so that programs at the same time get others."""
    low, high = _ephemeral()
    ports = [port for port in range(LOWEST, 65536) if not low <= port <= high]
    return random.sample(ports, min(DRAWS, len(ports)))


def _ephemeral() -> tuple[int, int]:
    try:
        low, high = map(int, EPHEMERAL.read_text().split())
    except (OSError, ValueError):  # not Linux, or a file of an unknown form
        return EPHEMERAL_BY_DEFAULT
    return low, high
