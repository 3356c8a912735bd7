"""How long an item takes, as far as that is known."""

import threading

__all__ = ["Pace"]

MEMORY = 64
"""Items after which another batch has half of the weight, if it has as many."""


class Pace:
    """The mean over all items at first, then over about the last `MEMORY` of them; for any thread.

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
            weight = items / min(self._items, MEMORY + items)
            self._each += weight * (seconds / items - self._each)

    @property
    def seconds(self) -> float:
        """Of an item; 0 while too little is known."""
        return self._each if self._items >= self._least else 0.0
