"""How often, and how long, a read that failed in passing is tried again."""

import random
import time

__all__ = ["ATTEMPTS", "NO_CONNECTION_SECONDS", "Patience", "be_patient"]

ATTEMPTS = 8
"""Requests that one read may take. Where one request of 20 fails, one read of 25,000,000,000 does."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 16.0
"""Pauses of up to 0.5, 1, 2, 4, 8, 16 and 16 s, drawn evenly from nothing up: 48 s at most, 24 s on average."""
NO_CONNECTION_SECONDS = 10.0
"""Where no attempt met anybody (refused, timed out, unknown host), the store is down or its name is wrong."""
_longer_seconds: float | None = None

# Not the module's own generator: training seeds that one, with the same number on many machines.
_JITTER = random.SystemRandom()


def be_patient(seconds: float) -> None:
    """From now on, in this process, wait so long for a store that nobody meets: one that was there before."""
    global _longer_seconds
    _longer_seconds = seconds


class Patience:
    """That of one read. Progress takes nothing back: a read has its attempts, however far each one came."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._attempts = 0
        self._met = False

    def wait(self, *, met: bool) -> bool:
        """Pause after a failed attempt.

        Args:
            met: whether somebody answered, or at least took the connection.

        Returns:
            Whether to try again.
        """
        self._attempts += 1
        self._met |= met
        if self._met and self._attempts >= ATTEMPTS:
            return False
        longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(self._attempts - 1, ATTEMPTS))
        pause = _JITTER.uniform(0, longest)
        most = NO_CONNECTION_SECONDS if _longer_seconds is None else _longer_seconds
        if not self._met and time.monotonic() - self._began + pause > most:
            return False
        time.sleep(pause)
        return True
