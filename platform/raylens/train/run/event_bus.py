"""Several who hear the news of a run, none of whom can keep it from the others."""

from collections.abc import Callable, Mapping

from raylens.messages import Say, warning
from raylens.train.loop.events import News, Warned

__all__ = ["Listeners"]


class Listeners:
    """Passes news on. Who raises is said of once, to everybody else, and is told of what comes next all the same.

    Args:
        listeners: by the name that a warning calls them.
        say: is given the warning as a line, too: whoever shows news may be the one who fails.
    """

    def __init__(self, listeners: Mapping[str, Callable[[News], None]], say: Say) -> None:
        self._listeners = dict(listeners)
        self._say = say
        self._failing: set[str] = set()

    def tell(self, news: News) -> None:
        """In the order of the listeners."""
        for name, listener in self._listeners.items():
            self._pass_on(name, listener, news)

    def _pass_on(self, name: str, listener: Callable[[News], None], news: News) -> None:
        try:
            listener(news)
        except Exception as error:  # noqa: BLE001 (theirs, whatever it is; the thread that brings news goes on)
            if name not in self._failing:
                self._failing.add(name)  # first: what follows may come by here again
                self._warn(
                    f"{name} failed at {type(news).__name__} ({type(error).__name__}: {error}); training and "
                    "the others go on, and it is told what comes next"
                )

    def _warn(self, text: str) -> None:
        self._pass_on("say", lambda _: self._say(warning(text)), Warned(text))
        for name, listener in self._listeners.items():
            if name not in self._failing:
                self._pass_on(name, listener, Warned(text))
