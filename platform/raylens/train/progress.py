"""News of a run on its way from the workers to whoever started it."""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any

import ray

from raylens.train.loop import Record

__all__ = ["Checkpointed", "Metrics", "News", "Restarting", "Started", "Warned", "board", "listening"]

POLL_SECONDS = 0.5
LOOK_SECONDS = 10


@dataclass(frozen=True)
class Started:
    """Workers are up and about to train steps ``start + 1`` to ``steps``."""

    start: int
    steps: int
    workers: int
    micro_batch: int
    """Pairs that go through a worker's towers at a time."""
    micro_batches: int
    """Of them in a step."""


@dataclass(frozen=True)
class Warned:
    """Something to look at, while training goes on."""

    text: str


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


News = Started | Metrics | Checkpointed | Restarting | Warned


class _Board:
    """Keeps news until it is known that they arrived."""

    def __init__(self) -> None:
        self._news: list[News] = []
        self._first = 0

    def post(self, news: News) -> None:
        self._news.append(news)

    def after(self, arrived: int) -> list[News]:
        """All but the first ``arrived`` news, which are forgotten."""
        self._news, self._first = self._news[arrived - self._first :], arrived
        return self._news


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
        self._thread.join(timeout=2 * LOOK_SECONDS)

    def _listen(self) -> None:
        last, arrived = False, 0
        while not last:
            last = self._done.wait(POLL_SECONDS)  # one more look after the end, for what came in between
            try:
                found = ray.get(self._source.after.remote(arrived), timeout=LOOK_SECONDS)
            except ray.exceptions.GetTimeoutError:
                continue  # a busy machine
            except ray.exceptions.RayError:
                return  # the cluster is gone; whoever waits for the run hears of it there
            arrived += len(found)
            for news in found:
                self._tell(news)
