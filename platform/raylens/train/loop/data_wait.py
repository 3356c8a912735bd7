"""How long a worker waits for data, and what for: the verdict that names the bottleneck."""

from dataclasses import dataclass

__all__ = ["Bound", "DataWait"]

Bound = str
"""``device``, ``storage``, ``decode`` or ``network``."""
FREE_SHARE = 0.05
"""Waiting for less than this share of the time, a worker is not held up by its data."""


@dataclass(frozen=True)
class DataWait:
    """Seconds of one worker over some steps; adds up."""

    seconds: float = 0.0
    """All of the time, waiting included."""
    made: float = 0.0
    """Waiting for a batch that was not made yet."""
    sent: float = 0.0
    """Waiting for a batch that was made, on its way here."""
    reading: float = 0.0
    """What tasks spent on reading these samples: wall time within a task."""
    decoding: float = 0.0
    """What tasks spent on decoding, cropping and tokenising them."""

    def __add__(self, other: "DataWait") -> "DataWait":
        return DataWait(
            self.seconds + other.seconds,
            self.made + other.made,
            self.sent + other.sent,
            self.reading + other.reading,
            self.decoding + other.decoding,
        )

    @classmethod
    def for_batch(cls, asked: float, came: float, made_at: float) -> "DataWait":
        """The wait for one batch, from three readings of the clock in seconds: asked for, arrived, and made.

        Clocks of two machines differ; the split between making and sending is only as good as they agree.
        """
        made = min(max(made_at, asked), came)
        return cls(made=made - asked, sent=came - made)

    @property
    def share(self) -> float:
        """Waiting as a share of all time."""
        return (self.made + self.sent) / self.seconds if self.seconds > 0 else 0.0

    @property
    def data_cores(self) -> float:
        """Tasks that were busy at a time, on average, to make these samples: this worker's share of data cores."""
        return (self.reading + self.decoding) / self.seconds if self.seconds > 0 else 0.0

    @property
    def bound(self) -> Bound:
        """What training at this speed is held up by."""
        if self.share < FREE_SHARE:
            return "device"
        if self.sent > self.made:
            return "network"
        return "storage" if self.reading > self.decoding else "decode"
