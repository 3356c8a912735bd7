"""Records of the clusters that run on this machine, with which another command can stop them."""

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
"""The field of /proc/PID/stat, counted after the name, with the process's start time."""


def state_folder() -> Path:
    """Return the folder with these records, and with the logs of clusters in the background."""
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "raylens" / "local"


def record(name: str, address: str) -> None:
    """Record that this process runs a cluster."""
    pid = os.getpid()
    replace_private(_file(name), json.dumps({"pid": pid, "began": _began(pid), "address": address}))


def forget(name: str) -> None:
    """Delete the record of a cluster that has ended."""
    _file(name).unlink(missing_ok=True)


def running(name: str) -> int | None:
    """Return the ID of the process that runs a cluster; None if it has ended, even if its ID was used again."""
    try:
        tree = json.loads(_file(name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {_file(name)}: {error}; remove it") from None
    return int(tree["pid"]) if _began(tree["pid"]) == tree["began"] else None


def stop(name: str) -> None:
    """Stop a cluster, and return when it has ended.

    Raises:
        ClusterError: no such cluster runs, or it does not end.
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
    """Return a process's start in ticks since the machine's start; None if it does not exist or is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[START_FIELD]
