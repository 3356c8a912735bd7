"""One device: lanes that never rest while anything waits for them."""

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
    """Work that waits for a device."""

    def oldest(self) -> int | None:
        """The ticket of the item that has waited longest, or None."""
        ...

    @property
    def waiting(self) -> int:
        """Items in line."""
        ...

    def take(self, share: int) -> Sequence[Any]:
        """Remove the next batch, at most one part in ``share`` of what waits; called only where something does."""
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
    """Lends its lanes to the queue whose oldest item has waited longest.

    A batch is formed only at the moment when a lane is free: sealed earlier, it would miss all that arrives while it
    stands in line, and fragments would queue behind each other. All methods belong to the event loop.

    A lane is a thread that computes a batch on one core: cores that each have a batch of their own need not wait for
    each other after every layer, which they do where something else wants a core as well. What comes alone has all
    cores, in the first lane. The others never have more than theirs: OpenMP's threads stop waiting actively as soon as
    a process has more of them than cores, and are slower by a tenth from then on.

    Args:
        lanes: cores; one for a GPU, which is at its best with one batch at a time.
    """

    def __init__(self, lanes: int = 1) -> None:
        self._lanes = [ThreadPoolExecutor(1, thread_name_prefix=f"raylens-lane-{number}") for number in range(lanes)]
        self._queues: list[Queue] = []
        self._tickets = itertools.count()
        self._running: list[dict[asyncio.Future[Any], int]] = [{} for _ in self._lanes]
        """Of each lane: what it computes or has in line, and on how many cores."""
        self.closed = False

    @property
    def lanes(self) -> int:
        """Batches that are computed at the same time."""
        return len(self._lanes)

    @property
    def busy(self) -> bool:
        """Every lane computes."""
        return all(self._running)

    def attach(self, queue: Queue) -> None:
        """Serve one more queue."""
        self._queues.append(queue)

    def detach(self, queue: Queue) -> None:
        """Serve it no more; nothing may wait in it."""
        self._queues.remove(queue)

    def ticket(self) -> int:
        """The place of a new item in the order of arrival over all queues."""
        return next(self._tickets)

    def wake(self) -> None:
        """Start a batch in each free lane while anything waits."""
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
        # The first of its callbacks, before the answers, so that the device does not wait for them.
        done.add_done_callback(lambda done: self._release_lane(lane, done))
        return done

    def _release_lane(self, lane: int, done: "asyncio.Future[Any]") -> None:
        del self._running[lane][done]
        self.wake()

    async def run_in_lanes(self, compute: Callable[[], ResultT]) -> list[ResultT]:
        """Compute something once in every lane, behind what it computes; no batch is given to the lane meanwhile.

        Raises:
            ServingError: the device is closed.
        """
        if self.closed:
            raise ServingError("the replica is shutting down: send the request again")
        done = [self._submit(lane, 1, compute) for lane in range(self.lanes)]
        await asyncio.wait(done)  # which leaves them alone if the caller goes: a lane is free when its thread is
        return [one.result() for one in done]

    async def close(self) -> None:
        """Finish the batches that are computed, answer what waits with an error, and end the threads."""
        self.closed = True
        for queue in self._queues:
            queue.abandon(ServingError("the replica is shutting down: send the request again"))
        if running := [done for lane in self._running for done in lane]:
            await asyncio.wait(running)
        for lane in self._lanes:
            lane.shutdown()


def _on_cores(cores: int, compute: Callable[[], ResultT]) -> ResultT:
    torch.set_num_threads(cores)  # of this thread alone
    return compute()
