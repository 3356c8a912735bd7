"""Everybody who is told what happens to a run: its own folder, other tools, and whoever started it."""

from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from raylens.config import RunConfig
from raylens.messages import Say
from raylens.storage import Store
from raylens.train.loop.events import News, Warned
from raylens.train.run.event_bus import Listeners
from raylens.train.run.event_log import Events
from raylens.train.tracking import Trackers

__all__ = ["Audience"]


class Audience:
    """Hears from the start of training to its end.

    Raises:
        ConfigError: a tool that the configuration names cannot be used.
    """

    def __init__(self, config: RunConfig, run: Store, tell: Callable[[News], None] | None, say: Say) -> None:
        self._events = Events(run)
        self._trackers = Trackers(config.tracking, config, run, lambda text: self.tell(Warned(text)))
        listeners = {"events.jsonl": self._events.tell, "tell": tell, "tracking": self._trackers.tell}
        self._listeners = Listeners({name: one for name, one in listeners.items() if one is not None}, say)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(self._events)
        self._stack.enter_context(self._trackers)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def tell(self, news: News) -> None:
        """What the workers tell. Never raises what a listener does: see `Listeners`."""
        self._listeners.tell(news)
