"""The decisions that the workers of a run share after each step, exchanged between their CPUs."""

import threading
import time
from typing import Any, NamedTuple, TypeVar

import ray
import torch
import torch.distributed as dist

from raylens.ray_internals import is_preemption_announced
from raylens.train.collective.signals import terminated

__all__ = ["Coordinator", "StepDecision"]

LOOK_SECONDS = 1.0
T = TypeVar("T")


class StepDecision(NamedTuple):
    """The decision about what happens after a step, equal on all workers."""

    checkpoint_due: bool
    """Whether enough time has passed for a checkpoint."""
    node_leaving: bool
    """Whether a machine is about to be removed and this was not known before: the state is saved."""
    stop: bool
    """Whether the run saves its state and ends."""


class Coordinator:
    """One worker's connection to the others; its methods are collective unless they say otherwise."""

    def __init__(self, channel: Any) -> None:
        self.rank, self.workers = dist.get_rank(), dist.get_world_size()
        # gloo communicates between CPUs, so that no GPU waits for its queue.
        self._group = dist.new_group(backend="gloo")
        self._stop = threading.Event()
        self._leaving = False
        if self.rank == 0:
            threading.Thread(target=self._watch, args=(channel,), name="raylens-stop-requests", daemon=True).start()

    def all_max(self, values: list[int]) -> list[int]:
        """Implement `Collectives.all_max`: return the largest of each number over all workers."""
        numbers = torch.tensor(values, dtype=torch.int64)
        dist.all_reduce(numbers, op=dist.ReduceOp.MAX, group=self._group)
        return [int(number) for number in numbers]

    def all_gather(self, thing: object) -> list[object]:
        """Implement `Collectives.all_gather`: return the objects of all workers by rank."""
        things: list[object] = [None] * self.workers
        dist.all_gather_object(things, thing, group=self._group)
        return things

    def gather(self, thing: T) -> list[T] | None:
        """Return the objects of all workers on the first worker, and None on the others. Collective."""
        things: list[Any] | None = [None] * self.workers if self.rank == 0 else None
        dist.gather_object(thing, things, dst=0, group=self._group)
        return things

    def decide(self, *, checkpoint_due: bool) -> StepDecision:
        """Agree on what happens after a step; the first worker decides whether a checkpoint is due. Collective."""
        node_leaving = is_preemption_announced() or terminated()
        is_new = node_leaving and not self._leaving  # one checkpoint for each warning
        self._leaving = node_leaving
        decided = self.all_max([int(checkpoint_due and self.rank == 0), int(is_new), int(self._stop.is_set())])
        return StepDecision(*map(bool, decided))

    def _watch(self, channel: Any) -> None:
        """Poll the driver for a request to stop. Not collective."""
        while not self._stop.is_set():
            try:
                if ray.get(channel.is_to_stop.remote(), timeout=30):
                    self._stop.set()
            except ray.exceptions.RayError:
                return  # the driver is gone, and this process is about to end
            time.sleep(LOOK_SECONDS)
