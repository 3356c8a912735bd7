"""The niceness of Ray's workers: how far they give way to the other programs of their machine."""

import os

from raylens.errors import ConfigError

__all__ = ["LARGEST", "NICENESS", "WORKER_NICENESS", "worker_niceness"]

NICENESS = "RAYLENS_NICENESS"
"""The variable that sets the niceness of workers, to keep a laptop responsive; see `worker_niceness`."""
WORKER_NICENESS = "RAY_worker_niceness"
"""The variable that Ray's workers inherit from the raylet and read when they start; unset, they add 15 to its own."""
LARGEST = 19
"""The largest niceness, at which a process gets only what all others leave."""


def worker_niceness() -> str:
    """Return the niceness of workers where this process starts Ray: 0 by default, so that they get a fair share.

    At Ray's own default of 15 the kernel gives a worker a weight of 36, and any other program 1,024. Ray's variable
    takes precedence where it is set; otherwise ``RAYLENS_NICENESS`` holds the value.

    Raises:
        ConfigError: ``RAYLENS_NICENESS`` is not a niceness.
    """
    rays_own = os.environ.get(WORKER_NICENESS)
    if rays_own:
        return rays_own
    text = os.environ.get(NICENESS) or "0"
    if not (text.isascii() and text.isdecimal() and int(text) <= LARGEST):
        raise ConfigError(
            f"{NICENESS} = {text!r}: write a whole number from 0 (a fair share) to {LARGEST} (only what others leave)"
        )
    return text
