"""Work in a thread beside what a process does."""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

__all__ = ["in_background"]

ResultT = TypeVar("ResultT")


def in_background(work: Callable[[], ResultT], name: str) -> "Future[ResultT]":
    """Begin the work in a thread of its own, and return the future of its result or exception.

    The thread is a daemon, which those of an executor are not: a store that does not answer must not keep a process
    that ends.

    Args:
        work: what to do.
        name: that of the thread.
    """
    future: Future[ResultT] = Future()

    def run() -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 (it is raised where the result is asked for)
            future.set_exception(error)
        else:
            future.set_result(result)

    Thread(target=run, name=name, daemon=True).start()
    return future
