"""Ctrl-C around Ray Train's ``fit``."""

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import ray

from raylens.errors import TrainingError

__all__ = ["interrupts_kept"]


@contextmanager
def interrupts_kept() -> Iterator[None]:
    """Inside, ``fit`` may run; Ctrl-C means `KeyboardInterrupt` before, during and after.

    ``fit`` puts a handler in place that ends its controller, so that an interrupt and a lost controller look the same,
    and leaves that handler behind. The interpreter itself is asked which signals came.

    Raises:
        KeyboardInterrupt: it was interrupted.
        TrainingError: the controller is gone for another reason.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # fit registers no handler there
        return
    before = signal.getsignal(signal.SIGINT)
    with ExitStack() as stack:
        heard, told = (stack.enter_context(end) for end in socket.socketpair())
        heard.setblocking(False)
        told.setblocking(False)
        former = signal.set_wakeup_fd(told.fileno())
        try:
            yield
        except (ray.exceptions.RayActorError, SystemExit) as error:  # the handler may exit the process
            if signal.SIGINT in _received(heard):
                raise KeyboardInterrupt from None
            if isinstance(error, SystemExit):
                raise
            raise TrainingError(
                f"Ray Train's controller was lost ({str(error).splitlines()[0]}). The checkpoints are kept: the same "
                "command resumes"
            ) from error
        finally:
            signal.set_wakeup_fd(former)
            signal.signal(signal.SIGINT, before)


def _received(heard: socket.socket) -> bytes:
    """The numbers of the signals that came, a byte each."""
    try:
        return heard.recv(4096)
    except BlockingIOError:
        return b""
