"""The terms of a cost: figures with their origin, and the inputs from which they are computed."""

from dataclasses import dataclass

__all__ = ["Data", "Figure", "Rate", "Spot"]


@dataclass(frozen=True)
class Figure:
    """A number with its unit and its origin."""

    name: str
    value: float
    unit: str
    how: str


@dataclass(frozen=True)
class Rate:
    """The speed of training, and of a core that decodes."""

    pairs_per_second: float
    """Training speed of all workers of the run together."""
    how: str
    """The origin of the speed: given, measured or assumed."""
    pairs_per_core: float
    """Pairs a second that a core reads and decodes."""
    core_how: str
    assumed: str = ""
    """Which of these values were assumed rather than measured."""


@dataclass(frozen=True)
class Data:
    """The size of the data that a run reads."""

    pairs: int
    """Number of pairs in an epoch."""
    bytes_per_pair: float
    """Bytes that are read from the store for a pair."""
    gets_per_pair: float
    how: str
    lists: int = 1
    """LIST requests for the data at each start of a run."""
    assumed: str = ""


@dataclass(frozen=True)
class Spot:
    """The interruptions of spot machines."""

    interruptions: float
    """Number of interruptions of a node in a day."""
    restart_minutes: float
    """Minutes from the loss of a node to the next step."""
