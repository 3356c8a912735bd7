"""The training loop of a worker: it consumes batches and produces metrics, and knows neither Ray nor DeepSpeed."""

from typing import TYPE_CHECKING

from raylens.lazy import lazy_face

if TYPE_CHECKING:
    from raylens.train.loop.events import (
        Checkpointed,
        Evaluated,
        Metrics,
        Preparing,
        Restarting,
        RunEvent,
        Started,
        Stopping,
        Warned,
    )
    from raylens.train.loop.metrics import StepMetrics
    from raylens.train.loop.schedule import TrainingProgress, learning_rate, log_scale_at

__all__ = [
    "Checkpointed",
    "Evaluated",
    "Metrics",
    "Preparing",
    "Restarting",
    "RunEvent",
    "Started",
    "StepMetrics",
    "Stopping",
    "TrainingProgress",
    "Warned",
    "learning_rate",
    "log_scale_at",
]

__getattr__ = lazy_face(
    __name__,
    {
        "Checkpointed": "events",
        "Evaluated": "events",
        "Metrics": "events",
        "Preparing": "events",
        "Restarting": "events",
        "RunEvent": "events",
        "Started": "events",
        "StepMetrics": "metrics",
        "Stopping": "events",
        "TrainingProgress": "schedule",
        "Warned": "events",
        "learning_rate": "schedule",
        "log_scale_at": "schedule",
    },
)
