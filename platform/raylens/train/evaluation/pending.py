"""What an evaluation found, worked out in a thread beside training."""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Thread

from raylens.evaluate.metrics import Metric

__all__ = ["Finding", "Working"]


@dataclass(frozen=True)
class Finding:
    """Of one evaluation."""

    step: int
    metrics: tuple[Metric, ...]
    seconds: float
    """That training stood still."""
    problem: str = ""
    """Why metrics are missing, or on how many images they are not."""


class Working:
    """A finding that is on its way; whoever wants it waits for it, in any thread."""

    def __init__(self, step: int, work: Callable[[], Finding]) -> None:
        self.step = step
        self._finding = Finding(step, (), 0.0)
        self._work = work
        self._thread = Thread(target=self._run, name="raylens-figures")
        self._thread.start()

    def _run(self) -> None:
        try:
            self._finding = self._work()
        except Exception as error:  # noqa: BLE001 (in a thread: it would be lost, and training goes on all the same)
            self._finding = Finding(self.step, (), 0.0, f"{type(error).__name__}: {error}")

    @property
    def busy(self) -> bool:
        """Whether it is not there yet."""
        return self._thread.is_alive()

    def finding(self) -> Finding:
        """Once it is there."""
        self._thread.join()
        return self._finding
