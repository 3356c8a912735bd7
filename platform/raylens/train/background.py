"""Work that a thread does beside training, with its result or the reason of its failure."""

from collections.abc import Callable
from threading import Thread
from typing import Generic, TypeVar

from raylens.errors import RaylensError

__all__ = ["BackgroundTask", "failure_text"]

ResultT = TypeVar("ResultT")


def failure_text(error: Exception) -> str:
    """Return the message of an error of raylens, and the class and the message of any other."""
    return str(error) if isinstance(error, RaylensError) else f"{type(error).__name__}: {error}"


class BackgroundTask(Generic[ResultT]):
    """A function that runs in a thread of its own, from its construction on; no exception of it is lost.

    Args:
        work: the function.
        name: the name of the thread.
        daemon: whether the process may end before the function returns.
    """

    def __init__(self, work: Callable[[], ResultT], name: str, *, daemon: bool = True) -> None:
        self.result: ResultT | None = None
        """The returned value; None while the function runs, and if it failed."""
        self.failure = ""
        """The reason of the failure; empty while the function runs, and if it returned."""
        self._work = work
        self._thread = Thread(target=self._run, name=name, daemon=daemon)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.result = self._work()
        except Exception as error:  # noqa: BLE001 (whoever started the task decides what a failure means)
            self.failure = failure_text(error)

    @property
    def busy(self) -> bool:
        """Whether the function still runs."""
        return self._thread.is_alive()

    def wait(self) -> None:
        """Wait until the function has returned or failed."""
        self._thread.join()
