"""The policy of when a run saves its state, and of what it reports about it."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from raylens.config import CheckpointConfig
from raylens.errors import StorageError
from raylens.evaluate import Metric
from raylens.train.checkpoint.async_save import AsyncSaver, Collectives, SaveOutcome
from raylens.train.checkpoint.retention import prune
from raylens.train.checkpoint.snapshot import Snapshot
from raylens.train.checkpoint.store import CheckpointManifest, Checkpoints
from raylens.train.collective.coordinator import StepDecision
from raylens.train.loop.events import Checkpointed, RunEvent, Stopping, Warned

__all__ = ["CheckpointPolicy", "SaveRequest", "StepCoordinator"]

PATIENCE_SECONDS = 600.0
"""Seconds for which the last checkpoint of a run is tried again; nothing else is left to do."""


class StepCoordinator(Collectives, Protocol):
    """Protocol of the collective operations that the policy needs."""

    def decide(self, *, checkpoint_due: bool) -> StepDecision:
        """Agree on what happens after a step. Collective."""
        ...


class SaveRequest(NamedTuple):
    """The state after a step, ready to be saved."""

    snapshot: Snapshot
    manifest: CheckpointManifest
    """The manifest, complete but for the files and the metrics."""
    metrics: Callable[[], Sequence[Metric]]
    """Returns the metrics; it may block, in another thread than that of training."""


class CheckpointPolicy:
    """Decides when one worker saves; all methods are collective.

    Args:
        config: the checkpoint settings of the run.
        steps: the steps of the whole run; the state after the last one is always saved.
        checkpoints: the checkpoints of the run.
        coordinator: the connection to the other workers.
        state: copies the state after a step, the only time for which training pauses. Collective.
        on_event: receives the events of the run.
    """

    def __init__(
        self,
        config: CheckpointConfig,
        steps: int,
        checkpoints: Checkpoints,
        coordinator: StepCoordinator,
        state: Callable[[int], SaveRequest],
        on_event: Callable[[RunEvent], None],
    ) -> None:
        self._config, self._steps, self._coordinator = config, steps, coordinator
        self._checkpoints, self._saver = checkpoints, AsyncSaver(checkpoints, coordinator)
        self._state, self._on_event = state, on_event
        self._saved_at, self._begun = time.monotonic(), 0
        self._failing = self._prune_failure = self._skipping = False
        self.stopping = False
        """Whether the run ends after this step, its state saved."""

    def due(self, step: int) -> bool:
        """Return whether the state after this step is to be saved."""
        if (outcome := self._saver.poll()) is not None:
            self._settled(outcome)
        config = self._config
        checkpoint_due = (
            config.every_minutes is not None and time.monotonic() - self._saved_at >= 60 * config.every_minutes
        )
        decision = self._coordinator.decide(checkpoint_due=checkpoint_due)
        self.stopping = decision.stop
        if decision.stop or decision.node_leaving or step == self._steps:
            return True
        due = decision.checkpoint_due or (config.every_steps is not None and step % config.every_steps == 0)
        if due and self._saver.busy:
            self._skip(step)
            return False
        return due

    def _skip(self, step: int) -> None:
        """Warn that a checkpoint is skipped because the previous one is still being uploaded; once in a row."""
        if not self._skipping:
            self._warn(
                f"no checkpoint after step {step}: the one of step {self._begun} is still being uploaded; "
                "training continues, and the next one is saved as usual. A larger checkpoint.every_steps (now "
                f"{self._config.every_steps}) or every_minutes (now {self._config.every_minutes}) gives it more time"
            )
        self._skipping = True

    def save(self, step: int) -> None:
        """Begin to save; at the last step, or if the run is to stop, wait until the checkpoint exists.

        Raises:
            StorageError: the state could not be saved for a long time.
        """
        # Another attempt is only in progress if this one must not be skipped: training waits.
        self.wait()
        self._skipping = False
        self._begin(step)
        if step == self._steps or self.stopping:
            self._insist(step)
        if self.stopping and step < self._steps:
            self._on_event(Stopping(step))

    def _begin(self, step: int) -> None:
        state = self._state(step)
        self._saved_at, self._begun = time.monotonic(), step
        self._saver.begin(*state, lambda: prune(self._checkpoints, self._config))

    def _settled(self, outcome: SaveOutcome) -> None:
        if outcome.failure:
            self._failed(outcome)
            return
        self._failing = False
        self._on_event(Checkpointed(outcome.step))
        if outcome.prune_failure and not self._prune_failure:
            self._warn(
                f"the checkpoint at step {outcome.step} is saved, but older ones could not be deleted "
                f"({outcome.prune_failure}); raylens checkpoints prune deletes them later"
            )
        self._prune_failure = bool(outcome.prune_failure)

    def _failed(self, outcome: SaveOutcome) -> None:
        why = (
            "again" if self._failing else f"({outcome.failure}); training continues, and the next one is saved as usual"
        )
        self._failing = True
        self._warn(f"the checkpoint at step {outcome.step} could not be saved {why}")

    def _warn(self, text: str) -> None:
        self._on_event(Warned(text))

    def wait(self) -> str:
        """Wait for the attempt that is in progress; return why it failed, or an empty string."""
        outcome = self._saver.wait()
        if outcome is None:
            return ""
        self._settled(outcome)
        return outcome.failure

    def _insist(self, step: int) -> None:
        """Try again until the checkpoint exists."""
        began, pause = time.monotonic(), 1.0
        while failure := self.wait():
            over = int(time.monotonic() - began > PATIENCE_SECONDS)
            if self._coordinator.all_max([over])[0]:
                raise StorageError(
                    f"the checkpoint at step {step} could not be saved for {PATIENCE_SECONDS:.0f} s: {failure}. The "
                    "same command resumes from the newest complete one"
                )
            time.sleep(pause)
            pause = min(30.0, 2 * pause)
            self._begin(step)
