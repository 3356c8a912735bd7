"""A device whose lanes, the threads that compute, are never idle while items wait."""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol, TypeVar

import torch

from raylens.errors import ServingError

__all__ = ["Device", "Queue"]

ResultT = TypeVar("ResultT")


class Queue(Protocol):
    """A queue of items that waits for a device."""

    def oldest(self) -> int | None:
        """Return the ticket of the item that has waited longest, or None."""
        ...

    @property
    def waiting(self) -> int:
        """Number of items in the queue."""
        ...

    def take(self, share: int) -> Sequence[Any]:
        """Remove and return the next batch, at most 1/``share`` of what waits; something does."""
        ...

    def run(self, batch: Sequence[Any]) -> Any:
        """Compute a batch, in the thread of a lane."""
        ...

    def deliver(self, batch: Sequence[Any], done: "asyncio.Future[Any]") -> None:
        """Answer the items of a batch with the outcome of `run`."""
        ...

    def abandon(self, error: ServingError) -> None:
        """Answer everything that waits with an error."""
        ...


class Device:
    """A device that gives a free lane to the queue whose oldest item has waited longest.

    A batch is formed only when a lane is free: formed earlier, it would miss the items that arrive while it waits, and
    small batches would queue behind each other. All methods must be called in the event loop.

    A lane is a thread that computes a batch on one core: cores with batches of their own need not wait for each other
    after every layer, which costs time where other processes use the cores too. A lone batch gets all cores, in the
    first lane. The other lanes always have one core: OpenMP's threads stop waiting actively as soon as a process has
    more of them than cores, and are slower by a tenth from then on.

    Args:
        lanes: number of lanes: one for each core, and one for a GPU, which is fastest with one batch at a time.
    """

    def __init__(self, lanes: int = 1) -> None:
        self._lanes = [ThreadPoolExecutor(1, thread_name_prefix=f"raylens-lane-{number}") for number in range(lanes)]
        self._queues: list[Queue] = []
        self._tickets = itertools.count()
        self._running: list[dict[asyncio.Future[Any], int]] = [{} for _ in self._lanes]
        """What each lane computes or has queued, and the number of cores for it."""
        self.closed = False

    @property
    def lanes(self) -> int:
        """Number of batches that are computed at the same time."""
        return len(self._lanes)

    @property
    def busy(self) -> bool:
        """Whether every lane is computing."""
        return all(self._running)

    def attach(self, queue: Queue) -> None:
        """Serve another queue from now on."""
        self._queues.append(queue)

    def detach(self, queue: Queue) -> None:
        """Stop serving a queue, in which nothing may wait."""
        self._queues.remove(queue)

    def ticket(self) -> int:
        """Return the number of a new item in the order of arrival over all queues."""
        return next(self._tickets)

    def wake(self) -> None:
        """Start batches in the free lanes, as long as items wait."""
        while not (self.busy or self.closed):
            waiting = [(oldest, queue) for queue in self._queues if (oldest := queue.oldest()) is not None]
            if not waiting:
                return
            _, queue = min(waiting, key=lambda pair: pair[0])
            free = sum(not running for running in self._running)
            self._start(queue, queue.take(min(free, sum(queue.waiting for queue in self._queues))))

    def _start(self, queue: Queue, batch: Sequence[Any]) -> None:
        lane = next(number for number, running in enumerate(self._running) if not running)
        cores = 1
        if lane == 0 and not any(queue.waiting for queue in self._queues):
            cores = max(1, self.lanes - sum(cores for running in self._running for cores in running.values()))
        done = self._submit(lane, cores, partial(queue.run, batch))
        done.add_done_callback(lambda done: queue.deliver(batch, done))

    def _submit(self, lane: int, cores: int, compute: Callable[[], ResultT]) -> "asyncio.Future[ResultT]":
        done = asyncio.get_running_loop().run_in_executor(self._lanes[lane], _on_cores, cores, compute)
        self._running[lane][done] = cores
        # This is the first callback, before the answers are delivered, so that the device does not wait for them.
        done.add_done_callback(lambda done: self._release_lane(lane, done))
        return done

    def _release_lane(self, lane: int, done: "asyncio.Future[Any]") -> None:
        del self._running[lane][done]
        self.wake()

    async def run_in_lanes(self, compute: Callable[[], ResultT]) -> list[ResultT]:
        """Compute something once in every lane, after its current batch; the lanes get no batch before it is done.

        Raises:
            ServingError: the device is closed.
        """
        if self.closed:
            raise ServingError("the replica is shutting down: send the request again")
        done = [self._submit(lane, 1, compute) for lane in range(self.lanes)]
        await asyncio.wait(done)  # does not cancel them with the caller: a lane is free when its thread is
        return [future.result() for future in done]

    async def close(self) -> None:
        """Finish the current batches, answer waiting items with an error, and end the threads."""
        self.closed = True
        for queue in self._queues:
            queue.abandon(ServingError("the replica is shutting down: send the request again"))
        if running := [done for lane in self._running for done in lane]:
            await asyncio.wait(running)
        for lane in self._lanes:
            lane.shutdown()


def _on_cores(cores: int, compute: Callable[[], ResultT]) -> ResultT:
    torch.set_num_threads(cores)  # applies to this thread alone
    return compute()
