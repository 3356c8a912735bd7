"""News of a run, as the workers tell them."""

from dataclasses import dataclass

from raylens.evaluate.metrics import Metric
from raylens.train.loop.metrics import Record

__all__ = ["Checkpointed", "Evaluated", "Metrics", "News", "Preparing", "Restarting", "Started", "Stopping", "Warned"]


@dataclass(frozen=True)
class Preparing:
    """What the workers do before they can train, which takes seconds."""

    text: str


@dataclass(frozen=True)
class Started:
    """Workers are up and about to train steps ``start + 1`` to ``steps``."""

    start: int
    steps: int
    workers: int
    micro_batch: int
    """Pairs that go through a worker's towers at a time."""
    micro_batches: int
    """Of them in a step."""


@dataclass(frozen=True)
class Warned:
    """Something to look at, while training goes on."""

    text: str


@dataclass(frozen=True)
class Metrics:
    """A record was logged."""

    record: Record
    steps: int


@dataclass(frozen=True)
class Checkpointed:
    """A complete checkpoint exists."""

    step: int


@dataclass(frozen=True)
class Restarting:
    """Workers were lost; training goes on from the newest checkpoint."""

    reason: str


@dataclass(frozen=True)
class Evaluated:
    """The model was evaluated while training waited."""

    step: int
    metrics: tuple[Metric, ...]
    seconds: float


@dataclass(frozen=True)
class Stopping:
    """The run was asked to stop, has saved its state after this step, and ends."""

    step: int


News = Preparing | Started | Metrics | Checkpointed | Evaluated | Restarting | Stopping | Warned
