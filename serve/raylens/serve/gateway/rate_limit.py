"""Rate limits with a token bucket for each caller."""

import time
from collections.abc import Callable

__all__ = ["TokenBuckets"]

BURST_SECONDS = 10.0
"""Size of a bucket, in seconds of its caller's rate."""


class TokenBuckets:
    """Token buckets that may be overdrawn: a request larger than the bucket is served, and the caller waits afterwards.

    Args:
        now: a monotonic clock in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._levels: dict[str, tuple[float, float]] = {}

    def take(self, name: str, items: int, per_second: float | None) -> float:
        """Take items from a caller's bucket; return 0, or the seconds until the caller may try again."""
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
