"""Checkpoints saved beside training: it pauses for the copy to host memory, and a thread of each worker uploads.

Whether all parts have been uploaded, and so whether the checkpoint exists, is agreed on at the steps that follow, by
exchanging a few numbers.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from raylens.background import in_background
from raylens.errors import message_of
from raylens.evaluate import Metric
from raylens.train.checkpoint.snapshot import Snapshot
from raylens.train.checkpoint.store import CheckpointManifest, Checkpoints

if TYPE_CHECKING:
    from concurrent.futures import Future

    from raylens.train.checkpoint.files import SavedFile

__all__ = ["AsyncSaver", "Collectives", "SaveOutcome"]

POLL_SECONDS = 0.05
THREAD = "raylens-checkpoint"


class Collectives(Protocol):
    """Protocol of the collective operations that saving needs."""

    rank: int

    def all_max(self, values: list[int]) -> list[int]:
        """Return the largest of each number over all workers. Collective."""
        ...

    def all_gather(self, thing: object) -> list[object]:
        """Return the objects of all workers, in the order of their ranks. Collective."""
        ...


@dataclass(frozen=True)
class SaveOutcome:
    """The outcome of an attempt to save a checkpoint."""

    step: int
    failure: str = ""
    """Why the attempt failed; empty if the checkpoint exists."""
    prune_failure: str = ""
    """Why the first worker could not delete older checkpoints once the new one existed; empty if it could."""


class AsyncSaver:
    """Saves one checkpoint at a time; all methods are collective, except `busy`."""

    def __init__(self, checkpoints: Checkpoints, collectives: Collectives) -> None:
        self._checkpoints, self._collectives = checkpoints, collectives
        self._work: Future[SavedFile | None] | None = None
        self._manifest: CheckpointManifest | None = None
        self._publishing = False
        self._metrics: Callable[[], Sequence[Metric]] = tuple
        self._prune: Callable[[], object] = lambda: None
        self._prune_failure = ""

    @property
    def busy(self) -> bool:
        """Whether an attempt is in progress; equal on all workers."""
        return self._manifest is not None

    def begin(
        self,
        snapshot: Snapshot,
        manifest: CheckpointManifest,
        metrics: Callable[[], Sequence[Metric]],
        prune: Callable[[], object],
    ) -> None:
        """Start an attempt to save a checkpoint.

        Args:
            snapshot: the state of this worker.
            manifest: the manifest, complete but for the files and the metrics.
            metrics: returns the metrics; the first worker calls it in its thread, so that it may block.
            clear: what the first worker does once the checkpoint exists, in the same thread.
        """
        assert not self.busy
        self._manifest, self._metrics, self._prune = manifest, metrics, prune
        self._publishing, self._prune_failure = False, ""
        self._work = in_background(
            lambda: self._checkpoints.upload(snapshot, manifest.step, manifest.attempt, self._collectives.rank), THREAD
        )

    def poll(self) -> SaveOutcome | None:
        """Advance the attempt; return its outcome once, when it is done."""
        if self._manifest is None:
            return None
        busy = self._work is not None and not self._work.done()
        failed = not busy and self._failure() is not None
        any_busy, any_failed = self._collectives.all_max([int(busy), int(failed)])
        return None if any_busy else self._settle(failed=bool(any_failed))

    def _settle(self, *, failed: bool) -> SaveOutcome | None:
        assert self._manifest is not None
        manifest = self._manifest
        if failed:
            error = self._failure()
            failures = self._collectives.all_gather(message_of(error) if error else "")
            self._manifest = self._work = None
            return SaveOutcome(manifest.step, next(str(failure) for failure in failures if failure))
        if self._publishing:
            self._manifest = self._work = None
            return SaveOutcome(manifest.step, prune_failure=self._prune_failure)
        files = self._collectives.all_gather(self._work.result() if self._work else None)
        complete = manifest.model_copy(update={"files": files})
        self._publishing = True
        # Only the first worker writes; the others wait for it.
        is_first = self._collectives.rank == 0
        self._work = in_background(lambda: self._publish(complete), THREAD) if is_first else None
        return None

    def _failure(self) -> BaseException | None:
        """Return the exception of this worker's thread, which has ended."""
        return None if self._work is None else self._work.exception()

    def _publish(self, complete: CheckpointManifest) -> None:
        self._checkpoints.publish(complete.evaluated(self._metrics()))
        try:
            self._prune()
        except Exception as error:  # noqa: BLE001 (the checkpoint exists, whatever became of older ones)
            self._prune_failure = message_of(error)

    def wait(self) -> SaveOutcome | None:
        """Wait for the end of the attempt that is in progress, and return its outcome."""
        outcome = None
        while self.busy:
            outcome = self.poll()
            if outcome is None:
                time.sleep(POLL_SECONDS)
        return outcome
