"""One device: a worker thread that never rests while anything waits for it."""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from raylens.errors import ServingError

__all__ = ["Device", "Queue"]

ResultT = TypeVar("ResultT")


class Queue(Protocol):
    """Work that waits for a device."""

    def oldest(self) -> int | None:
        """The ticket of the item that has waited longest, or None."""
        ...

    def take(self) -> Sequence[Any]:
        """Remove the next batch; called only where something waits."""
        ...

    def run(self, batch: Sequence[Any]) -> Any:
        """Compute a batch, in the worker thread."""
        ...

    def deliver(self, batch: Sequence[Any], done: "asyncio.Future[Any]") -> None:
        """Answer the items of a batch with the outcome of `run`."""
        ...

    def abandon(self, error: ServingError) -> None:
        """Answer everything that waits with an error."""
        ...


class Device:
    """Lends its worker thread to the queue whose oldest item has waited longest.

    A batch is formed only at the moment when the device is free: sealed earlier, it would miss all that arrives
    while it stands in line, and fragments would queue behind each other. All methods belong to the event loop.
    """

    def __init__(self) -> None:
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="raylens-device")
        self._queues: list[Queue] = []
        self._tickets = itertools.count()
        self._running: asyncio.Future[Any] | None = None
        self.closed = False

    @property
    def busy(self) -> bool:
        """A batch is being computed."""
        return self._running is not None

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
        """Start a batch if the device is free and anything waits."""
        if self.busy or self.closed:
            return
        waiting = [(oldest, queue) for queue in self._queues if (oldest := queue.oldest()) is not None]
        if not waiting:
            return
        _, queue = min(waiting, key=lambda pair: pair[0])
        batch = queue.take()
        self._running = asyncio.get_running_loop().run_in_executor(self._worker, queue.run, batch)
        self._running.add_done_callback(lambda done: self._finish(queue, batch, done))

    async def alone(self, compute: Callable[[], ResultT]) -> ResultT:
        """Compute something in the worker thread, behind the batch that runs."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, compute)

    def _finish(self, queue: Queue, batch: Sequence[Any], done: "asyncio.Future[Any]") -> None:
        self._running = None
        self.wake()  # before the answers, so that the device does not wait for them
        queue.deliver(batch, done)

    async def close(self) -> None:
        """Finish the batch that runs, answer what waits with an error, and end the thread."""
        self.closed = True
        for queue in self._queues:
            queue.abandon(ServingError("the replica is shutting down: send the request again"))
        if self._running is not None:
            await asyncio.wait([self._running])
        self._worker.shutdown()
