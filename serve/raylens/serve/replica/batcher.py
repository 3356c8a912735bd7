"""The work-conserving batcher: when the device is free, it takes whatever waits."""

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
"""After it a bulk item goes with the others: under a steady load it would never have its turn."""
PACE_WINDOW = 64
"""Items after which another batch has half of the weight, if it has as many."""


@dataclass(eq=False, frozen=True)
class _QueuedItem(Generic[InT, OutT]):
    item: InT
    size: int
    ticket: int
    answer: "asyncio.Future[OutT]"
    yields_until: float
    """On the clock of `time.monotonic`; a bulk item stands behind all others until then."""
    since: float
    """On the clock of `time.perf_counter`."""


class Pace:
    """The mean over all items at first, then over about the last `PACE_WINDOW` of them; for any thread.

    It counts items and not batches: what comes alone takes several times as long as its share of a batch would, and a
    first lone item on a busy machine must not speak for a crowd.

    Args:
        least: items of which nothing is concluded.
    """

    def __init__(self, least: int) -> None:
        self._least = least
        self._lock = threading.Lock()
        self._items = 0
        self._each = 0.0

    def add(self, items: int, seconds: float) -> None:
        """Count a batch."""
        with self._lock:
            self._items += items
            weight = items / min(self._items, PACE_WINDOW + items)
            self._each += weight * (seconds / items - self._each)

    @property
    def seconds(self) -> float:
        """Of an item; 0 while too little is known."""
        return self._each if self._items >= self._least else 0.0


class Batcher(Generic[InT, OutT]):
    """A bounded queue of items in front of a device.

    Args:
        device: what computes; several batchers may share one.
        compute: a batch of items to as many results, in order; runs in a thread of the device.
        max_batch: most items of a batch.
        capacity: most items that are held at a time, from reservation to answer.
        size: the cost of an item, such as a text's tokens. Where more waits than a batch takes, the oldest item
            goes with those nearest to it in size, since a batch is padded to its longest; so none starves.
        max_wait_s: what is expected to wait longer than this is refused at once, when it could still go elsewhere:
            behind a queue that is longer than the callers' patience, the device would only compute for nobody.
        meter: is told how long items wait, and of how many items and seconds the batches are.
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
        """Places that are taken."""
        return self._pending

    @property
    def waiting(self) -> int:
        """Items in line."""
        return sum(not waiting.answer.done() for waiting in self._waiting)

    @property
    def expected_wait_s(self) -> float:
        """Of what is held now, at the pace of the last batches."""
        return self._pending * self._pace.seconds / self._device.lanes

    @contextmanager
    def reserve(self, count: int) -> "Iterator[Reservation[InT, OutT]]":
        """Take places for ``count`` items, before effort is spent on preparing them.

        Raises:
            OverloadedError: there are not as many free, or it would take too long until the last has its turn.
            ServingError: the device is closed.
        """
        if self._device.closed:
            raise ServingError("the replica is shutting down: send the request again")
        if self._pending + count > self._capacity:
            raise OverloadedError(
                f"{count} items do not fit: {self._pending} of {self._capacity} places are taken; try again in a moment"
            )
        # By what is held already, so that the largest request is served where nothing else waits.
        if self.expected_wait_s > self._max_wait_s:
            raise OverloadedError(
                f"{self._pending} items wait, about {self.expected_wait_s:.0f} s of work: try again in a moment"
            )
        self._pending += count
        try:
            yield Reservation(self, count)
        finally:
            self._pending -= count

    def enqueue(self, items: Sequence[InT], *, bulk: bool = False) -> "list[asyncio.Future[OutT]]":
        """Put items in line; for holders of places."""
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
        """See `raylens.serve.replica.device.Queue`."""
        self._waiting = [waiting for waiting in self._waiting if not waiting.answer.done()]  # drops the cancelled
        return self._waiting[0].ticket if self._waiting else None

    def take(self, share: int) -> Sequence[_QueuedItem[InT, OutT]]:
        """See `raylens.serve.replica.device.Queue`."""
        now = time.monotonic()
        most = min(self._max_batch, math.ceil(len(self._waiting) / share))
        urgent = [waiting for waiting in self._waiting if waiting.yields_until <= now]
        patient = [waiting for waiting in self._waiting if waiting.yields_until > now]
        head = (urgent or patient)[0].size
        batch: list[_QueuedItem[InT, OutT]] = []
        for line in (urgent, patient):
            # Stable: items of one size leave in the order in which they came.
            batch += heapq.nsmallest(most - len(batch), line, key=lambda waiting: abs(waiting.size - head))
        began = time.perf_counter()
        self._meter.add("queue", *(began - waiting.since for waiting in batch))
        taken = {waiting.ticket for waiting in batch}
        self._waiting = [waiting for waiting in self._waiting if waiting.ticket not in taken]
        return batch

    def run(self, batch: Sequence[_QueuedItem[InT, OutT]]) -> Sequence[OutT]:
        """See `raylens.serve.replica.device.Queue`."""
        began = time.perf_counter()
        results = self._compute([waiting.item for waiting in batch])
        seconds = time.perf_counter() - began
        self._meter.add("compute", seconds)
        self._meter.add("batch", len(batch))
        self._pace.add(len(batch), seconds)
        if len(results) != len(batch):
            raise ServingError(f"a batch of {len(batch)} items came back with {len(results)} results")
        return results

    def deliver(self, batch: Sequence[_QueuedItem[InT, OutT]], done: "asyncio.Future[Sequence[OutT]]") -> None:
        """See `raylens.serve.replica.device.Queue`."""
        error = done.exception()
        results = done.result() if error is None else ()
        for place, waiting in enumerate(batch):
            if waiting.answer.done():  # cancelled while it ran
                continue
            if error is None:
                waiting.answer.set_result(results[place])
            else:
                waiting.answer.set_exception(error)

    def abandon(self, error: ServingError) -> None:
        """See `raylens.serve.replica.device.Queue`."""
        for waiting in self._waiting:
            if not waiting.answer.done():
                waiting.answer.set_exception(error)
        self._waiting = []


class Reservation(Generic[InT, OutT]):
    """Room in a batcher for a number of items."""

    def __init__(self, batcher: Batcher[InT, OutT], count: int) -> None:
        self._batcher = batcher
        self._left = count

    async def run(self, items: Sequence[InT], *, bulk: bool = False) -> list[OutT | BaseException]:
        """The results of items in their order; for each item of a failed batch, the exception.

        Cancelled, it takes the items out of the line.

        Raises:
            ServingError: more items than places.
        """
        if len(items) > self._left:
            raise ServingError(f"{len(items)} items for {self._left} reserved places")
        self._left -= len(items)
        return await asyncio.gather(*self._batcher.enqueue(items, bulk=bulk), return_exceptions=True)
