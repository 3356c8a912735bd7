"""Ctrl-C and SIGTERM, for as long as a block runs: end at once, or in order first."""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from types import FrameType, TracebackType
from typing import Self

__all__ = ["SIGNALS", "Handler", "Interrupts", "signal_handlers", "sigterm_interrupts"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)
Handler = Callable[[int, FrameType | None], object] | signal.Handlers


@contextmanager
def signal_handlers(handlers: Mapping[signal.Signals, Handler]) -> Iterator[None]:
    """Inside, signals go to these handlers. Python lets the main thread alone do this; in another, nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            # None: a handler that is not Python's, which cannot be put back from here.
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def sigterm_interrupts() -> AbstractContextManager[None]:
    """Inside, a polite request to stop (SIGTERM) is answered like Ctrl-C: what was started is stopped."""
    return signal_handlers({signal.SIGTERM: _interrupt})


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


class Interrupts:
    """Inside, the first Ctrl-C or SIGTERM asks for an end in order; the second raises `KeyboardInterrupt`.

    Args:
        say: is given ``notice`` at the first.
        notice: what ends, and what is done before.
    """

    def __init__(self, say: Callable[[str], object], notice: str) -> None:
        self._say, self._notice = say, notice
        self.stop: Callable[[], object] = lambda: None
        """Asks for an end in order; set once there is something to end, and may be called from another thread."""
        self.abort: Callable[[], object] | None = None
        """Ends at once what would outlive this process; set likewise, in the main thread alone."""
        self.count = 0
        """How many signals came."""
        self._handlers: AbstractContextManager[None] = signal_handlers(dict.fromkeys(SIGNALS, self._take))

    def __enter__(self) -> Self:
        self._handlers.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handlers.__exit__(kind, error, trace)

    def _take(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1
        if self.count == 1:
            self.stop()
            self._say(f"stopping: {self._notice} (once more to stop at once)")
            return
        if self.abort is not None:
            # A third one must not find the second's work half done.
            for number in SIGNALS:
                signal.signal(number, signal.SIG_IGN)
            self.abort()
        raise KeyboardInterrupt
