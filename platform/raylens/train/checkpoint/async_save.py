"""Checkpoints beside training: it pauses for the copy to host memory; a thread of each worker writes and uploads.

What all workers must agree on (whether all parts are there, and so whether the checkpoint exists) is exchanged at the
steps that follow, a few numbers each.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Thread
from typing import Protocol

from raylens.errors import RaylensError
from raylens.evaluate.metrics import Metric
from raylens.train.checkpoint.files import SavedFile
from raylens.train.checkpoint.snapshot import Snapshot
from raylens.train.checkpoint.store import CheckpointManifest, Checkpoints

__all__ = ["Outcome", "Saver", "Together"]

POLL_SECONDS = 0.05


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


class _Work:
    """Something that a thread does, and what came of it."""

    def __init__(self, work: Callable[[], SavedFile | None]) -> None:
        self.result: SavedFile | None = None
        self.failure = ""
        self._work = work
        self._thread = Thread(target=self._run, name="raylens-checkpoint", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.result = self._work()
        except Exception as error:  # noqa: BLE001 (whatever it is, training goes on and says it)
            self.failure = _said(error)

    @property
    def busy(self) -> bool:
        return self._thread.is_alive()


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, RaylensError) else f"{type(error).__name__}: {error}"


class Saver:
    """One attempt at a time. All methods are collective but `busy`."""

    def __init__(self, checkpoints: Checkpoints, together: Together) -> None:
        self._checkpoints, self._together = checkpoints, together
        self._work: _Work | None = None
        self._manifest: CheckpointManifest | None = None
        self._publishing = False
        self._metrics: Callable[[], Sequence[Metric]] = tuple
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
        metrics: Callable[[], Sequence[Metric]],
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
        self._work = _Work(
            lambda: self._checkpoints.upload(snapshot, manifest.step, manifest.attempt, self._together.rank)
        )

    def poll(self) -> Outcome | None:
        """How it stands; the outcome once, when all is done."""
        if self._manifest is None:
            return None
        mine = self._work
        # In this order: once a thread has ended, whether it failed stays as it is.
        busy = mine is not None and mine.busy
        failed = mine is not None and bool(mine.failure)
        any_busy, any_failed = self._together.most([int(busy), int(failed)])
        return None if any_busy else self._settle(failed=bool(any_failed))

    def _settle(self, *, failed: bool) -> Outcome | None:
        assert self._manifest is not None
        manifest, mine = self._manifest, self._work
        if failed:
            failures = self._together.all_of(mine.failure if mine else "")
            self._manifest = self._work = None
            return Outcome(manifest.step, next(str(one) for one in failures if one))
        if self._publishing:
            self._manifest = self._work = None
            return Outcome(manifest.step, uncleared=self._uncleared)
        files = self._together.all_of(mine.result if mine else None)
        complete = manifest.model_copy(update={"files": files})
        self._publishing = True
        # Only the first worker writes; the others wait for its word.
        self._work = _Work(lambda: self._publish(complete)) if self._together.rank == 0 else None
        return None

    def _publish(self, complete: CheckpointManifest) -> None:
        self._checkpoints.publish(complete.evaluated(self._metrics()))
        try:
            self._clear()
        except Exception as error:  # noqa: BLE001 (the checkpoint exists, whatever became of older ones)
            self._uncleared = _said(error)

    def wait(self) -> Outcome | None:
        """Until the attempt that is under way has come to its end."""
        outcome = None
        while self.busy:
            outcome = self.poll()
            if outcome is None:
                time.sleep(POLL_SECONDS)
        return outcome
