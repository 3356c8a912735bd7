"""A work-conserving batcher: when the device is free, it takes whatever waits, without a timer."""

import asyncio
import heapq
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from raylens.errors import OverloadedError, ServingError
from raylens.serve.histograms import Meter
from raylens.serve.replica.device import Device

__all__ = ["Batcher", "Pace", "Reservation"]

InT = TypeVar("InT")
OutT = TypeVar("OutT")

BULK_YIELD_S = 5.0
"""Time after which a bulk item counts as interactive, because under a steady load it would never have its turn."""
PACE_WINDOW = 64
"""Size of the pace's moving window: a batch of as many items has half of the weight."""


@dataclass(eq=False, frozen=True)
class _QueuedItem(Generic[InT, OutT]):
    item: InT
    size: int
    ticket: int
    answer: "asyncio.Future[OutT]"
    yields_until: float
    """Time of `time.monotonic` until which a bulk item stands behind all others."""
    since: float
    """Time of `time.perf_counter` when the item was queued."""


class Pace:
    """The mean time of an item: over all items at first, then over about the last `PACE_WINDOW`; safe in any thread.

    It is weighted by items and not by batches: a lone item takes several times as long as its share of a batch, and a
    first lone item on a busy machine must not stand for a full queue.

    Args:
        min_items: number of items below which the pace counts as unknown.
    """

    def __init__(self, min_items: int) -> None:
        self._min_items = min_items
        self._lock = threading.Lock()
        self._items = 0
        self._each = 0.0

    def add(self, items: int, seconds: float) -> None:
        """Add a batch of items and its time."""
        with self._lock:
            self._items += items
            weight = items / min(self._items, PACE_WINDOW + items)
            self._each += weight * (seconds / items - self._each)

    @property
    def seconds(self) -> float:
        """Seconds per item; 0 while the pace is unknown."""
        return self._each if self._items >= self._min_items else 0.0


class Batcher(Generic[InT, OutT]):
    """A bounded queue of items in front of a device.

    Args:
        device: the device that computes; several batchers may share it.
        compute: turns a batch of items into as many results, in order; it runs in a thread of the device.
        max_batch: largest number of items of a batch.
        capacity: largest number of items that are pending at a time, from reservation to answer.
        size: the cost of an item, such as the number of a text's tokens. Where more items wait than a batch takes, the
            oldest one goes with those nearest to it in size, because a batch is padded to its longest; none starves.
        max_wait_s: items that are expected to wait longer are refused at once, while they can still go elsewhere: in a
            queue that is longer than the callers' patience, the device would compute answers that nobody awaits.
        meter: counts the waiting times of items, and the sizes and times of batches.
    """

    def __init__(
        self,
        device: Device,
        compute: Callable[[list[InT]], Sequence[OutT]],
        *,
        max_batch: int,
        capacity: int,
        size: Callable[[InT], int] = lambda _: 0,
        max_wait_s: float = math.inf,
        meter: Meter | None = None,
    ) -> None:
        self._device = device
        self._compute = compute
        self._max_batch = max_batch
        self._capacity = capacity
        self._size = size
        self._max_wait_s = max_wait_s
        self._meter = meter or Meter()
        self._pace = Pace(max_batch)
        self._pending = 0
        self._waiting: list[_QueuedItem[InT, OutT]] = []
        device.attach(self)

    @property
    def pending(self) -> int:
        """Number of items that are reserved, waiting or being computed."""
        return self._pending

    @property
    def waiting(self) -> int:
        """Number of items in the queue."""
        return sum(not waiting.answer.done() for waiting in self._waiting)

    @property
    def expected_wait_s(self) -> float:
        """Seconds that the pending items will take, at the pace of the last batches."""
        return self._pending * self._pace.seconds / self._device.lanes

    @contextmanager
    def reserve(self, count: int) -> "Iterator[Reservation[InT, OutT]]":
        """Reserve capacity for ``count`` items, before effort is spent on preparing them.

        Raises:
            OverloadedError: there is not enough capacity, or the queue is longer than ``max_wait_s``.
            ServingError: the device is closed.
        """
        if self._device.closed:
            raise ServingError("the replica is shutting down: send the request again")
        if self._pending + count > self._capacity:
            raise OverloadedError(
                f"{count} items exceed the capacity: {self._pending} of {self._capacity} are pending; try again soon"
            )
        # The items themselves do not count, so that the largest request is served where nothing else waits.
        if self.expected_wait_s > self._max_wait_s:
            raise OverloadedError(
                f"{self._pending} items are pending, about {self.expected_wait_s:.0f} s of work: try again in a moment"
            )
        self._pending += count
        try:
            yield Reservation(self, count)
        finally:
            self._pending -= count

    def enqueue(self, items: Sequence[InT], *, bulk: bool = False) -> "list[asyncio.Future[OutT]]":
        """Queue items for which there is a reservation; return the futures of their results."""
        loop = asyncio.get_running_loop()
        until, now = time.monotonic() + BULK_YIELD_S if bulk else -math.inf, time.perf_counter()
        added = [
            _QueuedItem(item, self._size(item), self._device.ticket(), loop.create_future(), until, now)
            for item in items
        ]
        self._waiting += added
        self._device.wake()
        return [waiting.answer for waiting in added]

    def oldest(self) -> int | None:
        """Implement `Queue.oldest`: return the ticket of the oldest item that waits."""
        self._waiting = [waiting for waiting in self._waiting if not waiting.answer.done()]  # drops the cancelled
        return self._waiting[0].ticket if self._waiting else None

    def take(self, share: int) -> Sequence[_QueuedItem[InT, OutT]]:
        """Implement `Queue.take`: remove the oldest item and those nearest to it in size."""
        now = time.monotonic()
        count = min(self._max_batch, math.ceil(len(self._waiting) / share))
        urgent = [waiting for waiting in self._waiting if waiting.yields_until <= now]
        patient = [waiting for waiting in self._waiting if waiting.yields_until > now]
        head = (urgent or patient)[0].size
        batch: list[_QueuedItem[InT, OutT]] = []
        for queue in (urgent, patient):
            # Stable: items of the same size leave in the order of arrival.
            batch += heapq.nsmallest(count - len(batch), queue, key=lambda waiting: abs(waiting.size - head))
        began = time.perf_counter()
        self._meter.add("queue", *(began - waiting.since for waiting in batch))
        taken = {waiting.ticket for waiting in batch}
        self._waiting = [waiting for waiting in self._waiting if waiting.ticket not in taken]
        return batch

    def run(self, batch: Sequence[_QueuedItem[InT, OutT]]) -> Sequence[OutT]:
        """Implement `Queue.run`: compute a batch and measure it."""
        began = time.perf_counter()
        results = self._compute([waiting.item for waiting in batch])
        seconds = time.perf_counter() - began
        self._meter.add("compute", seconds)
        self._meter.add("batch", len(batch))
        self._pace.add(len(batch), seconds)
        if len(results) != len(batch):
            raise ServingError(f"a batch of {len(batch)} items has {len(results)} results")
        return results

    def deliver(self, batch: Sequence[_QueuedItem[InT, OutT]], done: "asyncio.Future[Sequence[OutT]]") -> None:
        """Implement `Queue.deliver`: set the items' results, or the exception of the batch."""
        error = done.exception()
        results = done.result() if error is None else ()
        for index, waiting in enumerate(batch):
            if waiting.answer.done():  # cancelled while it ran
                continue
            if error is None:
                waiting.answer.set_result(results[index])
            else:
                waiting.answer.set_exception(error)

    def abandon(self, error: ServingError) -> None:
        """Implement `Queue.abandon`: answer all items that wait with the error."""
        for waiting in self._waiting:
            if not waiting.answer.done():
                waiting.answer.set_exception(error)
        self._waiting = []


class Reservation(Generic[InT, OutT]):
    """Reserved capacity of a batcher for a number of items."""

    def __init__(self, batcher: Batcher[InT, OutT], count: int) -> None:
        self._batcher = batcher
        self._left = count

    async def run(self, items: Sequence[InT], *, bulk: bool = False) -> list[OutT | BaseException]:
        """Queue items and return their results in order; for each item of a failed batch, the exception.

        If it is cancelled, the items leave the queue.

        Raises:
            ServingError: there are more items than were reserved.
        """
        if len(items) > self._left:
            raise ServingError(f"{len(items)} items exceed the reservation, of which {self._left} are left")
        self._left -= len(items)
        return await asyncio.gather(*self._batcher.enqueue(items, bulk=bulk), return_exceptions=True)
