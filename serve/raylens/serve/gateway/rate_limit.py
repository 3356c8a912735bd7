"""Rate limits: a bucket of items for each caller."""

import time
from collections.abc import Callable

__all__ = ["TokenBuckets"]

BURST_SECONDS = 10.0
"""What an idle caller has saved up, in seconds of its rate."""


class TokenBuckets:
    """Token buckets that may be overdrawn: a request larger than the burst is served, and paid for afterwards.

    Args:
        now: a clock in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._levels: dict[str, tuple[float, float]] = {}

    def take(self, name: str, items: int, per_second: float | None) -> float:
        """Take items for a caller: 0 if it may have them, else the seconds until it may ask again."""
        if per_second is None:
            return 0.0
        now = self._now()
        level, at = self._levels.get(name, (per_second * BURST_SECONDS, now))
        level = min(per_second * BURST_SECONDS, level + (now - at) * per_second)
        if level <= 0:
            self._levels[name] = (level, now)
            return max(-level / per_second, 1 / per_second)
        self._levels[name] = (level - items, now)
        return 0.0
