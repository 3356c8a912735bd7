"""The events of a run, which its workers send to the process that started it."""

from dataclasses import dataclass

from raylens.evaluate import Metric
from raylens.train.loop.metrics import StepMetrics

__all__ = [
    "Checkpointed",
    "Evaluated",
    "Metrics",
    "Preparing",
    "Restarting",
    "RunEvent",
    "Started",
    "Stopping",
    "Warned",
]


@dataclass(frozen=True)
class Preparing:
    """The workers are starting, which takes seconds."""

    text: str


@dataclass(frozen=True)
class Started:
    """The workers are up and about to train steps ``start + 1`` to ``steps``."""

    start: int
    steps: int
    workers: int
    micro_batch: int
    """Number of pairs that pass through a worker's towers at a time."""
    micro_batches: int
    """Number of micro-batches in a step of one worker."""


@dataclass(frozen=True)
class Warned:
    """Something needs attention, while training continues."""

    text: str


@dataclass(frozen=True)
class Metrics:
    """The metrics of some steps were logged."""

    record: StepMetrics
    steps: int


@dataclass(frozen=True)
class Checkpointed:
    """A complete checkpoint exists for a step."""

    step: int


@dataclass(frozen=True)
class Restarting:
    """Workers were lost; training continues from the newest checkpoint."""

    reason: str


@dataclass(frozen=True)
class Evaluated:
    """The model was evaluated, and training was paused for some seconds."""

    step: int
    metrics: tuple[Metric, ...]
    seconds: float


@dataclass(frozen=True)
class Stopping:
    """The run was asked to stop; it saved its state after this step and ends."""

    step: int


RunEvent = Preparing | Started | Metrics | Checkpointed | Evaluated | Restarting | Stopping | Warned
