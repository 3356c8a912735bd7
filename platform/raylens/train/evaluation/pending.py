"""The result of an evaluation, which a thread computes while training continues."""

from collections.abc import Callable
from dataclasses import dataclass

from raylens.train.background import BackgroundTask

__all__ = ["EvalResult", "PendingEval"]


@dataclass(frozen=True)
class EvalResult:
    """The result of one evaluation, after a step."""

    step: int
    metrics: dict[str, float]
    seconds: float
    """Seconds for which training was paused."""
    problem: str = ""
    """Why metrics are missing, or how many images they leave out."""


class PendingEval:
    """An evaluation whose metrics are being computed; any thread may wait for its result."""

    def __init__(self, step: int, work: Callable[[], EvalResult]) -> None:
        self.step = step
        self._task = BackgroundTask(work, "raylens-eval", daemon=False)

    @property
    def busy(self) -> bool:
        """Whether the metrics are still being computed."""
        return self._task.busy

    def result(self) -> EvalResult:
        """Wait for the result and return it; a failure is a result without metrics."""
        self._task.wait()
        return self._task.result or EvalResult(self.step, {}, 0.0, self._task.failure)
