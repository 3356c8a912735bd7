"""The training run: launch on Ray Train, the loop, DeepSpeed ZeRO, schedules and checkpoints."""

from raylens.train.launch import RunResult, train

__all__ = ["RunResult", "train"]
