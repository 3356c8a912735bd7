"""A program that supervises a node of a cluster on this machine: `python supervisor.py ray start --block ...`.

The node ends, with every process that it ever started, when the supervisor receives SIGTERM, when its standard input
ends, because its parent is gone, or when Ray's own process ends. A line ``kill`` on standard input kills all of them at
once, like a machine that loses power.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

__all__ = ["main"]

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
ORDERLY_SECONDS = 20.0
SWEEP_SECONDS = 30.0
LOOK_SECONDS = 0.1
LIBC = ctypes.CDLL(None, use_errno=True)


def main() -> int:
    """Run the node until it ends; return the status of Ray's process if that ended by itself."""
    # Orphans of descendants become children of this process, so that it can end them.
    if LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    stop, kill = threading.Event(), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    node = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, preexec_fn=_end_with_parent)  # noqa: S603 (our caller's words)
    threading.Thread(target=_listen, args=(stop, kill), daemon=True).start()
    while node.poll() is None and not stop.is_set():
        time.sleep(LOOK_SECONDS)
    ended = node.poll()
    if ended is None and not kill.is_set():
        node.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            node.wait(ORDERLY_SECONDS)
    _sweep()
    return ended or 0


def _end_with_parent() -> None:
    """Have the child, before it becomes Ray, receive SIGTERM if this process is killed."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _listen(stop: threading.Event, kill: threading.Event) -> None:
    for line in sys.stdin:
        if line.strip() == "kill":
            kill.set()
            break
    stop.set()


def _sweep() -> None:
    """Kill all descendants that are left, at once."""
    end = time.monotonic() + SWEEP_SECONDS
    while time.monotonic() < end:
        for pid in _descendants(os.getpid()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(LOOK_SECONDS)


def _descendants(ancestor: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                # The name, in parentheses, may hold anything; the state and the parent follow it.
                parent = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1]
                children.setdefault(int(parent), []).append(int(entry.name))
    descendants, waiting = [], [ancestor]
    while waiting:
        below = children.get(waiting.pop(), [])
        descendants += below
        waiting += below
    return descendants


if __name__ == "__main__":
    sys.exit(main())
