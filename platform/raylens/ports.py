"""Free TCP ports of this machine."""

import random
import socket
from contextlib import suppress
from pathlib import Path

__all__ = ["free_port"]

EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
EPHEMERAL_BY_DEFAULT = (32768, 60999)
LOWEST = 20_000
"""Below lie the ports that programs fix, and those of Ray's workers (10002 to 19999)."""
DRAWS = 100


def free_port(wanted: int = 0) -> int:
    """A port that nobody holds at the moment, on any address of this machine.

    It lies outside the range from which the kernel gives ports to connections (``ip_local_port_range``). One of that
    range may be taken by any connection, of any program, before the caller listens on it; a Ray cluster has hundreds.

    Args:
        wanted: this one, if it is free.

    Raises:
        OSError: none is free.
    """
    for port in filter(None, (wanted, *_outside())):
        with suppress(OSError):
            return _bound(port)
    return _bound(0)


def _bound(port: int) -> int:
    """The port, if it can be bound; for 0, one that the kernel gives."""
    with socket.socket() as probe:
        probe.bind(("", port))
        return int(probe.getsockname()[1])


def _outside() -> list[int]:
    """Some ports outside the kernel's range, in random order: programs that ask at the same time get different ones."""
    low, high = _ephemeral()
    ports = [port for port in range(LOWEST, 65536) if not low <= port <= high]
    return random.sample(ports, min(DRAWS, len(ports)))


def _ephemeral() -> tuple[int, int]:
    try:
        low, high = map(int, EPHEMERAL.read_text().split())
    except (OSError, ValueError):  # not Linux, or nothing that we know
        return EPHEMERAL_BY_DEFAULT
    return low, high
