"""Checkpoints beside training: it pauses for the copy to host memory; a thread of each worker writes and uploads.

What all workers must agree on (whether all parts are there, and so whether the checkpoint exists) is exchanged at the
steps that follow, a few numbers each.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from raylens.background import in_background
from raylens.errors import message_of
from raylens.train.checkpoint.snapshot import Snapshot
from raylens.train.checkpoint.store import CheckpointManifest, Checkpoints

if TYPE_CHECKING:
    from concurrent.futures import Future

    from raylens.train.checkpoint.files import SavedFile

__all__ = ["Outcome", "Saver", "Together"]

POLL_SECONDS = 0.05
THREAD = "raylens-checkpoint"


class Together(Protocol):
    """What workers do in common."""

    rank: int

    def most(self, values: list[int]) -> list[int]:
        """Of each number, the largest over all workers. Collective."""
        ...

    def all_of(self, thing: object) -> list[object]:
        """Everybody's thing, in the order of ranks. Collective."""
        ...


@dataclass(frozen=True)
class Outcome:
    """Of an attempt to save."""

    step: int
    failure: str = ""
    """Empty if the checkpoint exists."""
    uncleared: str = ""
    """On the first worker: why, once it existed, others could not be deleted that are not kept."""


class Saver:
    """One attempt at a time. All methods are collective but `busy`."""

    def __init__(self, checkpoints: Checkpoints, together: Together) -> None:
        self._checkpoints, self._together = checkpoints, together
        self._work: Future[SavedFile | None] | None = None
        self._manifest: CheckpointManifest | None = None
        self._publishing = False
        self._metrics: Callable[[], dict[str, float]] = dict
        self._clear: Callable[[], object] = lambda: None
        self._uncleared = ""

    @property
    def busy(self) -> bool:
        """Whether an attempt is under way; the same on all workers."""
        return self._manifest is not None

    def begin(
        self,
        snapshot: Snapshot,
        manifest: CheckpointManifest,
        metrics: Callable[[], dict[str, float]],
        clear: Callable[[], object],
    ) -> None:
        """Start an attempt.

        Args:
            snapshot: this worker's.
            manifest: complete but for the files and the metrics.
            metrics: asked by the first worker in its thread, so that it may wait for them.
            clear: what the first worker does once the checkpoint exists, in the same thread.
        """
        assert not self.busy
        self._manifest, self._metrics, self._clear = manifest, metrics, clear
        self._publishing, self._uncleared = False, ""
        self._work = in_background(
            lambda: self._checkpoints.upload(snapshot, manifest.step, manifest.attempt, self._together.rank), THREAD
        )

    def poll(self) -> Outcome | None:
        """How it stands; the outcome once, when all is done."""
        if self._manifest is None:
            return None
        busy = self._work is not None and not self._work.done()
        failed = not busy and self._failure() is not None
        any_busy, any_failed = self._together.most([int(busy), int(failed)])
        return None if any_busy else self._settle(failed=bool(any_failed))

    def _settle(self, *, failed: bool) -> Outcome | None:
        assert self._manifest is not None
        manifest = self._manifest
        if failed:
            error = self._failure()
            failures = self._together.all_of(message_of(error) if error else "")
            self._manifest = self._work = None
            return Outcome(manifest.step, next(str(failure) for failure in failures if failure))
        if self._publishing:
            self._manifest = self._work = None
            return Outcome(manifest.step, uncleared=self._uncleared)
        files = self._together.all_of(self._work.result() if self._work else None)
        complete = manifest.model_copy(update={"files": files})
        self._publishing = True
        # Only the first worker writes; the others wait for its word.
        first = self._together.rank == 0
        self._work = in_background(lambda: self._publish(complete), THREAD) if first else None
        return None

    def _failure(self) -> BaseException | None:
        """What became of this worker's thread, which has ended."""
        return None if self._work is None else self._work.exception()

    def _publish(self, complete: CheckpointManifest) -> None:
        self._checkpoints.publish(complete.model_copy(update={"metrics": self._metrics()}))
        try:
            self._clear()
        except Exception as error:  # noqa: BLE001 (the checkpoint exists, whatever became of older ones)
            self._uncleared = message_of(error)

    def wait(self) -> Outcome | None:
        """Until the attempt that is under way has come to its end."""
        outcome = None
        while self.busy:
            outcome = self.poll()
            if outcome is None:
                time.sleep(POLL_SECONDS)
        return outcome
