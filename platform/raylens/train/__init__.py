"""Training: the run on Ray Train, the loop, the engine on DeepSpeed ZeRO, schedules, checkpoints and evaluation."""

from typing import TYPE_CHECKING

from raylens.lazy import lazy_face

if TYPE_CHECKING:
    from raylens.train.loop.events import Checkpointed, Evaluated, Metrics, RunEvent, Started, Stopping, Warned
    from raylens.train.run.launch import RunResult, train
    from raylens.train.runs.run_dir import RunFiles

__all__ = [
    "Checkpointed",
    "Evaluated",
    "Metrics",
    "RunEvent",
    "RunFiles",
    "RunResult",
    "Started",
    "Stopping",
    "Warned",
    "train",
]

__getattr__ = lazy_face(
    __name__,
    {
        "Checkpointed": "loop.events",
        "Evaluated": "loop.events",
        "Metrics": "loop.events",
        "RunEvent": "loop.events",
        "RunFiles": "runs.run_dir",
        "RunResult": "run.launch",
        "Started": "loop.events",
        "Stopping": "loop.events",
        "Warned": "loop.events",
        "train": "run.launch",
    },
)
