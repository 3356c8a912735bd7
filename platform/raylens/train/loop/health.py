"""The health checks of a run: skipped steps, and a loss that shows that nothing is learned."""

import math

from raylens.config import RunConfig
from raylens.errors import TrainingError
from raylens.train.loop.stats import StepStats

__all__ = ["StepMonitor"]

STUCK_STEPS = 300
"""Steps the loss may stay at ln(batch) before a warning; after a warm-up of 2,000 steps it has left it long before."""
SEARCH_STEPS = 16
"""Additional steps that may be skipped in a row in fp16, while its loss scale is searched by halving."""
NEAR = 0.005
"""Largest relative distance from ln(batch) at which the loss counts as equal to it."""


class StepMonitor:
    """Checks the statistics of each step, in order."""

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        self.skipped = 0
        """Number of skipped steps since the workers started."""
        self._skipped_in_row = self._stuck = 0

    def observe(self, stats: StepStats, step: int, samples: tuple[int, ...]) -> str | None:
        """Check the statistics of a step; return a warning, once for each problem, or None.

        Args:
            stats: the statistics of the step.
            step: the number of the step.
            samples: the samples of the worker's batch.

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
            f"for {STUCK_STEPS} steps the loss has stayed at {alike:.3f}, which is ln(global_batch): the "
            "model separates no pair from the others. Check whether captions fit images (raylens data stats shows "
            "some), and whether optim.peak_lr is too low or so high that all embeddings became equal"
        )

    def _skip(self, stats: StepStats, step: int, samples: tuple[int, ...]) -> str | None:
        self.skipped += 1
        self._skipped_in_row += 1
        allowed = self._config.optim.max_skipped + (SEARCH_STEPS if self._config.precision == "fp16" else 0)
        if self._skipped_in_row > allowed:
            raise TrainingError(f"{self._skipped_in_row} steps in a row {_diagnosis(stats, step, samples)}")
        if self._skipped_in_row > 1:
            return None
        return f"1 step {_diagnosis(stats, step, samples)}"


def _diagnosis(stats: StepStats, step: int, samples: tuple[int, ...]) -> str:
    if stats.broken:
        where = f"the embeddings are not finite for samples {_list(stats.broken)}"
    elif math.isfinite(stats.loss):
        where = f"the loss is finite, so that the backward pass caused it; samples {_list(samples)}"
    else:
        where = f"all embeddings are finite; samples {_list(samples)}"
    return (
        f"skipped because the loss or the gradient was not finite, the last at step {step}: loss {stats.loss:.4g}, "
        f"logit scale {stats.logit_scale:.4g}, gradient norm {stats.grad_norm:.4g}, weight norm "
        f"{stats.weight_norm:.4g}; {where} (raylens data explain CONFIG --step {step} lists their shards and keys). "
        "Lower optim.peak_lr, lengthen optim.schedule.warmup_steps, set optim.clip_norm=1, or train in fp32"
    )


def _list(samples: tuple[int, ...]) -> str:
    shown = ", ".join(map(str, samples[:8]))
    return f"{shown} and others" if len(samples) > 8 else shown
