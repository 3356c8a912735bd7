"""SIGTERM in a worker, which announces the end of its process: the run saves a checkpoint."""

import signal
import threading
from typing import Any

__all__ = ["listen_for_term", "terminated"]

_terminated = threading.Event()


def listen_for_term() -> None:
    """Record SIGTERM from now on in place of ending; whoever sends it ends the process by SIGKILL later.

    Python allows this in the main thread alone, and Ray Train runs the training function in another.
    """
    signal.signal(signal.SIGTERM, _note)


def terminated() -> bool:
    """Return whether this process has received SIGTERM."""
    return _terminated.is_set()


def _note(*_: Any) -> None:
    _terminated.set()
