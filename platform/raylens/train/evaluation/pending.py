"""What an evaluation found, worked out in a thread beside training."""

from concurrent.futures import Future
from dataclasses import dataclass

from raylens.errors import message_of

__all__ = ["Finding", "Working"]


@dataclass(frozen=True)
class Finding:
    """Of one evaluation."""

    step: int
    metrics: dict[str, float]
    seconds: float
    """That training stood still."""
    problem: str = ""
    """Why metrics are missing, or on how many images they are not."""


@dataclass(frozen=True)
class Working:
    """A finding that is on its way."""

    step: int
    future: Future[Finding]

    def finding(self) -> Finding:
        """Wait for the finding, in any thread; what failed is a problem of the evaluation, and training goes on."""
        error = self.future.exception()
        return self.future.result() if error is None else Finding(self.step, {}, 0.0, message_of(error))
