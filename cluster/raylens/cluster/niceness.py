"""How far Ray's workers stand back behind the other programs of their machine."""

import os

from raylens.errors import ConfigError

__all__ = ["LARGEST", "NICENESS", "WORKER_NICENESS", "worker_niceness"]

NICENESS = "RAYLENS_NICENESS"
"""The variable by which a laptop stays responsive; see `worker_niceness`."""
WORKER_NICENESS = "RAY_worker_niceness"
"""The variable that Ray's workers read when they start, inherited from the raylet. Unset, they add 15 to its own."""
LARGEST = 19
"""At which a process gets what all others leave."""


def worker_niceness() -> str:
    """What Ray is told of its workers where this process starts it: 0 by default, so that they get a fair share.

    At Ray's own 15 the kernel weighs a worker 36 where it weighs any other program 1,024. Ray's variable, where
    somebody set it, is left as it is; otherwise ``RAYLENS_NICENESS`` says it.

    Raises:
        ConfigError: ``RAYLENS_NICENESS`` is no niceness.
    """
    given = os.environ.get(WORKER_NICENESS)
    if given:
        return given
    text = os.environ.get(NICENESS) or "0"
    if not (text.isascii() and text.isdecimal() and int(text) <= LARGEST):
        raise ConfigError(
            f"{NICENESS} = {text!r}: write a whole number from 0 (a fair share) to {LARGEST} (what others leave)"
        )
    return text
