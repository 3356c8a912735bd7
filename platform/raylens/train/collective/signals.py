"""SIGTERM to a worker: it is about to be ended, so a checkpoint is worth its while."""

import signal
import threading
from typing import Any

__all__ = ["listen_for_term", "terminated"]

_terminated = threading.Event()


def listen_for_term() -> None:
    """From now on SIGTERM is only noted; whoever sent it ends the process by SIGKILL, as all that send it do.

    Python lets the main thread alone do this, in which Ray Train does not run the training function.
    """
    signal.signal(signal.SIGTERM, _note)


def terminated() -> bool:
    """Whether the signal came."""
    return _terminated.is_set()


def _note(*_: Any) -> None:
    _terminated.set()
