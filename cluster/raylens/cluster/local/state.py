"""Which clusters of this machine run in the background, so that another command can stop them."""

import json
import os
import signal
import time
from pathlib import Path

from raylens.cluster.private_file import replace_private
from raylens.errors import ClusterError, ConfigError

__all__ = ["forget", "record", "running", "state_folder", "stop"]

STOP_SECONDS = 120.0
LOOK_SECONDS = 0.2
START_FIELD = 19
"""Of /proc/PID/stat, counted from behind the name: when the process began."""


def state_folder() -> Path:
    """Where this is written down, with what clusters in the background print."""
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "raylens" / "local"


def record(name: str, address: str) -> None:
    """This process runs a cluster."""
    pid = os.getpid()
    replace_private(_file(name), json.dumps({"pid": pid, "began": _began(pid), "address": address}))


def forget(name: str) -> None:
    """It does no longer."""
    _file(name).unlink(missing_ok=True)


def running(name: str) -> int | None:
    """The process that runs a cluster; None where there is none. A number that another process has by now is none."""
    try:
        tree = json.loads(_file(name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {_file(name)}: {error}; remove it") from None
    return int(tree["pid"]) if _began(tree["pid"]) == tree["began"] else None


def stop(name: str) -> None:
    """End a cluster, and return when it has ended.

    Raises:
        ClusterError: there is none, or it does not end.
    """
    pid = running(name)
    if pid is None:
        raise ClusterError(f"no local cluster {name!r} runs; start one with `raylens cluster local --detach`")
    os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + STOP_SECONDS
    while running(name) is not None:
        if time.monotonic() >= end:
            raise ClusterError(f"local cluster {name!r} does not end within {STOP_SECONDS:.0f} s: pid {pid}")
        time.sleep(LOOK_SECONDS)


def _file(name: str) -> Path:
    return state_folder() / f"{name}.json"


def _began(pid: int) -> str | None:
    """In ticks since the machine began; None where there is no such process, or one that only waits to be reaped."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[START_FIELD]
