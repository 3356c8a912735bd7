"""The time that a worker waits for data, and its cause: the metric that names the bottleneck of a run."""

from dataclasses import dataclass

__all__ = ["Bound", "DataWait"]

Bound = str
"""Bottleneck of a run: ``device``, ``storage``, ``decode`` or ``network``."""
FREE_SHARE = 0.05
"""Data is the bottleneck only if a worker waits for it for at least this share of the time."""


@dataclass(frozen=True)
class DataWait:
    """Seconds that one worker spent over some steps; instances can be added."""

    seconds: float = 0.0
    """Total time of the steps, waiting included."""
    made: float = 0.0
    """Time spent waiting for a batch that had not been made yet."""
    sent: float = 0.0
    """Time spent waiting for a batch that had been made but had not arrived."""
    reading: float = 0.0
    """Wall time that data tasks spent on reading these samples."""
    decoding: float = 0.0
    """Wall time that data tasks spent on decoding, cropping and tokenising these samples."""

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
        """Return the wait for one batch from the times, in seconds, at which it was requested, received and made.

        The clocks of two machines differ: the split between making and sending is only as exact as they agree.
        """
        made = min(max(made_at, asked), came)
        return cls(made=made - asked, sent=came - made)

    @property
    def share(self) -> float:
        """Return the share of the total time that was spent waiting."""
        return (self.made + self.sent) / self.seconds if self.seconds > 0 else 0.0

    @property
    def data_cores(self) -> float:
        """Return the average number of data tasks at a time for this worker: its share of the data cores."""
        return (self.reading + self.decoding) / self.seconds if self.seconds > 0 else 0.0

    @property
    def bound(self) -> Bound:
        """Return the bottleneck at the present speed of training."""
        if self.share < FREE_SHARE:
            return "device"
        if self.sent > self.made:
            return "network"
        return "storage" if self.reading > self.decoding else "decode"
