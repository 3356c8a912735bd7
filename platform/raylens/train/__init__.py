"""The training run: launch on Ray Train, the loop, DeepSpeed ZeRO, schedules and checkpoints."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raylens.train.launch import RunResult, train

__all__ = ["RunResult", "train"]


def __getattr__(name: str) -> Any:
    """Imported when it is asked for: every process of a run imports this package, most for something small in it."""
    if name in __all__:
        return getattr(import_module("raylens.train.launch"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
