"""Training: the run on Ray Train, the loop, the engine on DeepSpeed ZeRO, schedules, checkpoints and evaluation."""

from typing import TYPE_CHECKING

from raylens.lazy import lazy_face

if TYPE_CHECKING:
    from raylens.train.run.launch import RunResult, train

__all__ = ["RunResult", "train"]

__getattr__ = lazy_face(__name__, {"RunResult": "run.launch", "train": "run.launch"})
