"""The listeners of a run's events; none of them can keep an event from the others."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from raylens.config import RunConfig
from raylens.messages import Say, warning
from raylens.storage import Store
from raylens.train.loop.events import RunEvent, Warned
from raylens.train.run.event_log import EventLog
from raylens.train.tracking import Trackers

__all__ = ["EventBus", "RunObservers"]


class EventBus:
    """Forwards events to listeners. A listener that raises is reported once, and receives the following events all the
    same.

    Args:
        listeners: functions by the names that a warning uses.
        say: receives the warning as a line as well, because the listener that shows events may be the one that fails.
    """

    def __init__(self, listeners: Mapping[str, Callable[[RunEvent], None]], say: Say) -> None:
        self._listeners = dict(listeners)
        self._say = say
        self._failing: set[str] = set()

    def on_event(self, event: RunEvent) -> None:
        """Forward an event to all listeners, in their order."""
        for name, listener in self._listeners.items():
            self._pass_on(name, listener, event)

    def _pass_on(self, name: str, listener: Callable[[RunEvent], None], event: RunEvent) -> None:
        try:
            listener(event)
        except Exception as error:  # noqa: BLE001 (whatever a listener raises, the thread of events continues)
            if name not in self._failing:
                self._failing.add(name)  # first, because the warning comes by here again
                self._warn(
                    f"{name} failed at {type(event).__name__} ({type(error).__name__}: {error}); training "
                    "continues, and so do the other listeners; it receives the next events"
                )

    def _warn(self, text: str) -> None:
        self._pass_on("say", lambda _: self._say(warning(text)), Warned(text))
        for name, listener in self._listeners.items():
            if name not in self._failing:
                self._pass_on(name, listener, Warned(text))


class RunObservers:
    """The listeners of a run: its event log, its trackers, and the caller's function.

    Raises:
        ConfigError: a tracker that the configuration names cannot be used.
    """

    def __init__(self, config: RunConfig, run: Store, on_event: Callable[[RunEvent], None] | None, say: Say) -> None:
        self._events = EventLog(run)
        self._trackers = Trackers(config.tracking, config, run, lambda text: self.on_event(Warned(text)))
        listeners = {"events.jsonl": self._events.on_event, "tell": on_event, "tracking": self._trackers.on_event}
        self._listeners = EventBus(
            {name: function for name, function in listeners.items() if function is not None}, say
        )
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(self._events)
        self._stack.enter_context(self._trackers)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def on_event(self, event: RunEvent) -> None:
        """Forward an event of the run; exceptions of listeners are handled as in `EventBus`."""
        self._listeners.on_event(event)
