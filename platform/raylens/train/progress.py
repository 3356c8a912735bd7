"""News of a run on its way from the workers to whoever started it."""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any

import ray

from raylens.train.loop import Record

__all__ = ["Checkpointed", "Metrics", "News", "Restarting", "Started", "board", "listening"]

POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Started:
    """Workers are up and about to train steps ``start + 1`` to ``steps``."""

    start: int
    steps: int
    workers: int


@dataclass(frozen=True)
class Metrics:
    """A record was logged."""

    record: Record
    steps: int


@dataclass(frozen=True)
class Checkpointed:
    """A complete checkpoint exists."""

    step: int


@dataclass(frozen=True)
class Restarting:
    """Workers were lost; training goes on from the newest checkpoint."""

    reason: str


News = Started | Metrics | Checkpointed | Restarting


class _Board:
    """Keeps news until they are fetched."""

    def __init__(self) -> None:
        self._news: list[News] = []

    def post(self, news: News) -> None:
        self._news.append(news)

    def take(self) -> list[News]:
        taken, self._news = self._news, []
        return taken


def board() -> Any:
    """A board that workers post to; takes no CPU of the cluster."""
    return ray.remote(num_cpus=0)(_Board).remote()


class listening:  # noqa: N801 (used as a statement: ``with listening(...)``)
    """While inside, pass on news from a board to a function, in a thread of its own."""

    def __init__(self, source: Any, tell: Callable[[News], None]) -> None:
        self._source = source
        self._tell = tell
        self._done = Event()
        self._thread = Thread(target=self._listen, name="raylens-progress", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(timeout=10)

    def _listen(self) -> None:
        last = False
        while not last:
            last = self._done.wait(POLL_SECONDS)  # one more look after the end, for what came in between
            try:
                for news in ray.get(self._source.take.remote(), timeout=10):
                    self._tell(news)
            except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError):
                return  # the cluster is gone; whoever waits for the run hears of it there
