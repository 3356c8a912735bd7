"""What a cost is made of: figures with their origin, and what they are computed from."""

from dataclasses import dataclass

__all__ = ["Data", "Figure", "Rate", "Spot"]


@dataclass(frozen=True)
class Figure:
    """A number, and how it came about."""

    name: str
    value: float
    unit: str
    how: str


@dataclass(frozen=True)
class Rate:
    """How fast training is, and decoding."""

    pairs_per_second: float
    """Of the whole run, with all its workers."""
    how: str
    """Given, measured or assumed."""
    pairs_per_core: float
    """A second, that a core reads and decodes."""
    core_how: str
    assumed: str = ""
    """What of this nobody measured."""


@dataclass(frozen=True)
class Data:
    """How much there is to read."""

    pairs: int
    """In an epoch."""
    bytes_per_pair: float
    """Of the store, to read one."""
    gets_per_pair: float
    how: str
    lists: int = 1
    """Pages of the listing, each time that a run starts."""
    assumed: str = ""


@dataclass(frozen=True)
class Spot:
    """Machines that may be taken away."""

    interruptions: float
    """Of a node in a day."""
    restart_minutes: float
    """From the loss of a node to the next step that is trained."""
