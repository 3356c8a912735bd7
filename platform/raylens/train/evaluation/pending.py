"""The result of an evaluation, which a thread computes while training continues."""

from concurrent.futures import Future
from dataclasses import dataclass

from raylens.errors import message_of
from raylens.evaluate import Metric

__all__ = ["EvalResult", "PendingEval"]


@dataclass(frozen=True)
class EvalResult:
    """The result of one evaluation, after a step."""

    step: int
    metrics: tuple[Metric, ...]
    seconds: float
    """Seconds for which training was paused."""
    problem: str = ""
    """Why metrics are missing, or how many images they leave out."""


@dataclass(frozen=True)
class PendingEval:
    """An evaluation whose metrics are being computed; any thread may wait for its result."""

    step: int
    future: Future[EvalResult]

    def result(self) -> EvalResult:
        """Wait for the result and return it; a failure is a result without metrics."""
        error = self.future.exception()
        return self.future.result() if error is None else EvalResult(self.step, (), 0.0, message_of(error))
