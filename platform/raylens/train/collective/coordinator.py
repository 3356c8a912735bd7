"""What the workers of a run agree on from step to step: a few numbers, exchanged between their processors."""

import threading
import time
from typing import Any, NamedTuple, TypeVar

import ray
import torch
import torch.distributed as dist

from raylens.ray_internals import is_preemption_announced
from raylens.train.collective.signals import terminated

__all__ = ["Control", "Wishes"]

LOOK_SECONDS = 1.0
T = TypeVar("T")


class Wishes(NamedTuple):
    """What is to be done after a step, the same on all workers."""

    late: bool
    """So much time is over that a checkpoint is due."""
    leaving: bool
    """A machine is about to be taken away, which is news: save."""
    stop: bool
    """Save, and end."""


class Control:
    """This worker's end. Methods are collective unless they say otherwise."""

    def __init__(self, board: Any) -> None:
        self.rank, self.workers = dist.get_rank(), dist.get_world_size()
        # Over the processors' network, so that a GPU is not made to wait for its queue.
        self._group = dist.new_group(backend="gloo")
        self._stop = threading.Event()
        self._leaving = False
        if self.rank == 0:
            threading.Thread(target=self._watch, args=(board,), name="raylens-wishes", daemon=True).start()

    def most(self, values: list[int]) -> list[int]:
        """See `saver.Together`."""
        numbers = torch.tensor(values, dtype=torch.int64)
        dist.all_reduce(numbers, op=dist.ReduceOp.MAX, group=self._group)
        return [int(number) for number in numbers]

    def all_of(self, thing: object) -> list[object]:
        """See `saver.Together`."""
        things: list[object] = [None] * self.workers
        dist.all_gather_object(things, thing, group=self._group)
        return things

    def to_first(self, thing: T) -> list[T] | None:
        """Everybody's thing to the first worker; None on the others. Collective."""
        things: list[Any] | None = [None] * self.workers if self.rank == 0 else None
        dist.gather_object(thing, things, dst=0, group=self._group)
        return things

    def wishes(self, *, late: bool) -> Wishes:
        """After a step. The first worker says whether it is time for a checkpoint."""
        leaving = is_preemption_announced() or terminated()
        news = leaving and not self._leaving  # one checkpoint for one warning
        self._leaving = leaving
        found = self.most([int(late and self.rank == 0), int(news), int(self._stop.is_set())])
        return Wishes(*map(bool, found))

    def _watch(self, board: Any) -> None:
        """Not collective: ask for the wish of whoever started the run."""
        while not self._stop.is_set():
            try:
                if ray.get(board.is_to_stop.remote(), timeout=30):
                    self._stop.set()
            except ray.exceptions.RayError:
                return  # whoever started the run is gone, and this process is about to be
            time.sleep(LOOK_SECONDS)
