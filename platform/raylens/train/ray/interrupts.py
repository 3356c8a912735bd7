"""Ctrl-C and SIGTERM around Ray Train's ``fit``: the first asks the run to save and end, the second ends it."""

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

import ray

from raylens.errors import WorkersLostError

__all__ = ["Interrupts"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Inside, signals are taken; `KeyboardInterrupt` comes out where they ended the run.

    Raises:
        KeyboardInterrupt: it was ended at once.
        WorkersLostError: Ray Train's controller is gone for another reason.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self.stop: Callable[[], None] = lambda: None
        """Asks the workers to save and end; set once there are some, and may be called from another thread."""
        self.abort: Callable[[], None] = lambda: None
        """Ends the workers at once; set likewise, in the main thread alone."""
        self._heard = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._hear) for number in SIGNALS}
        return self

    def _hear(self, _number: int, _frame: FrameType | None) -> None:
        self._heard += 1
        if self._heard == 1:
            self.stop()
            self._say("stopping: the state is saved after the current step (once more to stop at once)")
            return
        # A third one must not find the second's work half done.
        for one in self._before:
            signal.signal(one, signal.SIG_IGN)
        self.abort()
        raise KeyboardInterrupt

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if isinstance(error, ray.exceptions.RayActorError):
            if self._heard > 1:
                raise KeyboardInterrupt from None
            raise WorkersLostError(
                f"Ray Train's controller was lost ({str(error).splitlines()[0]}). The checkpoints are kept: the same "
                "command resumes"
            ) from error
