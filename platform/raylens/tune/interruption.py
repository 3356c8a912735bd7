"""Ray Tune in our terminal: what it says, and what Ctrl-C does."""

import logging
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

__all__ = ["Interruption", "quiet"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Places in a configuration are relative to where the command was started.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # A run that came to nothing has evaluations without the metric.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_WARN_SLOW_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "600",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}


def quiet() -> None:
    """Ray Tune's own tables are for its own users, and what its loggers say stands in the record."""
    os.environ.update(SETTINGS)
    for name in ("ray.tune", "ray.air", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


class Interruption:
    """Inside, the first Ctrl-C or SIGTERM has Ray Tune save its state and end; the second ends at once.

    Ray Tune listens to SIGUSR1 for that, so this passes it on.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self.heard = False
        """Whether there was one."""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._hear) for number in SIGNALS}
            # Until Ray Tune listens, a signal would end the process.
            self._before[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        return self

    def _hear(self, _number: int, _frame: FrameType | None) -> None:
        if self.heard:
            raise KeyboardInterrupt
        self.heard = True
        self._say("stopping: the sweep's state is saved (once more to stop at once)")
        signal.raise_signal(signal.SIGUSR1)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
