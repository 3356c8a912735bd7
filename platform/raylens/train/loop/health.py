"""What a run is watched for: steps that had to be skipped, and a loss that tells nothing apart."""

import math

from raylens.config import RunConfig
from raylens.errors import TrainingError
from raylens.train.loop.stats import StepStats

__all__ = ["Watch"]

STUCK_STEPS = 300
"""So long may a loss be where it is when nothing is told apart; a warm-up of 2,000 steps leaves it well before."""
SEARCH_STEPS = 16
"""So many more may be skipped in a row in fp16, whose loss scale is found by halving it."""
NEAR = 0.005
"""How near, relative to it."""


class Watch:
    """Sees the figures of each step, in order."""

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        self.skipped = 0
        """Steps since the workers started."""
        self._skipped_in_row = self._stuck = 0

    def see(self, stats: StepStats, step: int, samples: tuple[int, ...]) -> str | None:
        """Take a step's figures; a warning where there is something to be told, once.

        Args:
            stats: of the step.
            step: its number.
            samples: of the worker's batch.

        Raises:
            TrainingError: too many steps in a row were skipped.
        """
        if stats.skipped:
            return self._skip(stats, step, samples)
        self._skipped_in_row = 0
        if self._config.objective.kind != "softmax":
            return None
        alike = math.log(self._config.global_batch)
        self._stuck = self._stuck + 1 if abs(stats.loss - alike) <= NEAR * alike else 0
        if self._stuck != STUCK_STEPS:
            return None
        return (
            f"for {STUCK_STEPS} steps the loss has stayed at {alike:.3f}, which is ln(global_batch): no pair "
            "is told from another. See whether captions fit their images (raylens data stats shows some), and whether "
            "optim.peak_lr is too low, or so high that all embeddings became alike"
        )

    def _skip(self, stats: StepStats, step: int, samples: tuple[int, ...]) -> str | None:
        self.skipped += 1
        self._skipped_in_row += 1
        most = self._config.optim.max_skipped + (SEARCH_STEPS if self._config.precision == "fp16" else 0)
        if self._skipped_in_row > most:
            raise TrainingError(f"{self._skipped_in_row} steps in a row {_diagnosis(stats, step, samples)}")
        if self._skipped_in_row > 1:
            return None
        return f"1 step {_diagnosis(stats, step, samples)}"


def _diagnosis(stats: StepStats, step: int, samples: tuple[int, ...]) -> str:
    if stats.broken:
        where = f"embeddings are not finite for samples {_list(stats.broken)}"
    elif math.isfinite(stats.loss):
        where = f"the loss is finite, so the backward pass is where it broke; samples {_list(samples)}"
    else:
        where = f"all embeddings are finite; samples {_list(samples)}"
    return (
        f"skipped for a loss or gradient that is not finite, the last at step {step}: loss {stats.loss:.4g}, "
        f"logit scale {stats.logit_scale:.4g}, gradient norm {stats.grad_norm:.4g}, norm of the weights "
        f"{stats.weight_norm:.4g}; {where} (raylens data explain CONFIG --step {step} tells their shards and keys). "
        "Lower optim.peak_lr, lengthen optim.schedule.warmup_steps, set optim.clip_norm=1, or train in fp32"
    )


def _list(samples: tuple[int, ...]) -> str:
    shown = ", ".join(map(str, samples[:8]))
    return f"{shown} and others" if len(samples) > 8 else shown
