"""Several who hear the news of a run, none of whom can keep it from the others."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from raylens.config import RunConfig
from raylens.storage import Store
from raylens.train.loop.events import RunEvent, Warned
from raylens.train.run.event_log import EventLog
from raylens.train.tracking import Trackers

__all__ = ["EventBus", "RunObservers"]


class EventBus:
    """Passes news on. Who raises is said of once, to everybody else, and is told of what comes next all the same.

    Args:
        listeners: by the name that a warning calls them.
        say: is given the warning as a line, too: whoever shows news may be the one who fails.
    """

    def __init__(self, listeners: Mapping[str, Callable[[RunEvent], None]], say: Callable[[str], None]) -> None:
        self._listeners = dict(listeners)
        self._say = say
        self._failing: set[str] = set()

    def on_event(self, event: RunEvent) -> None:
        """In the order of the listeners."""
        for name, listener in self._listeners.items():
            self._pass_on(name, listener, event)

    def _pass_on(self, name: str, listener: Callable[[RunEvent], None], event: RunEvent) -> None:
        try:
            listener(event)
        except Exception as error:  # noqa: BLE001 (theirs, whatever it is; the thread that brings news goes on)
            if name not in self._failing:
                self._failing.add(name)  # first: what follows may come by here again
                self._warn(
                    f"warning: {name} failed at {type(event).__name__} ({type(error).__name__}: {error}); training and "
                    "the others go on, and it is told what comes next"
                )

    def _warn(self, text: str) -> None:
        self._pass_on("say", lambda _: self._say(text), Warned(text))
        for name, listener in self._listeners.items():
            if name not in self._failing:
                self._pass_on(name, listener, Warned(text))


class RunObservers:
    """Hears from the start of training to its end.

    Raises:
        ConfigError: a tool that the configuration names cannot be used.
    """

    def __init__(
        self, config: RunConfig, run: Store, on_event: Callable[[RunEvent], None] | None, say: Callable[[str], None]
    ) -> None:
        self._events = EventLog(run)
        self._trackers = Trackers(config.tracking, config, run, lambda text: self.on_event(Warned(f"warning: {text}")))
        listeners = {"events.jsonl": self._events.on_event, "tell": on_event, "tracking": self._trackers.on_event}
        self._listeners = EventBus({name: one for name, one in listeners.items() if one is not None}, say)
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
        """What the workers tell. Never raises what a listener does: see `EventBus`."""
        self._listeners.on_event(event)
