"""When a run saves its state, and what is said of it: in time, late, or not at all."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from raylens.config import CheckpointConfig
from raylens.errors import StorageError
from raylens.evaluate.metrics import Metric
from raylens.train.checkpoint.async_save import Outcome, Saver, Together
from raylens.train.checkpoint.retention import prune
from raylens.train.checkpoint.snapshot import Snapshot
from raylens.train.checkpoint.store import CheckpointManifest, Checkpoints
from raylens.train.collective.coordinator import Wishes
from raylens.train.loop.events import Checkpointed, News, Stopping, Warned

__all__ = ["Deciding", "Saving", "State"]

PATIENCE_SECONDS = 600.0
"""So long is the last checkpoint of a run tried again; nothing else is left to do."""


class Deciding(Together, Protocol):
    """What workers decide in common."""

    def wishes(self, *, late: bool) -> Wishes:
        """After a step. Collective."""
        ...


class State(NamedTuple):
    """What there is to save after a step."""

    snapshot: Snapshot
    manifest: CheckpointManifest
    """Complete but for the files and the metrics."""
    metrics: Callable[[], Sequence[Metric]]
    """May be waited for, in another thread than training's."""


class Saving:
    """Of one worker. All methods are collective.

    Args:
        config: of the run.
        steps: of the whole run; the last one is saved in any case.
        checkpoints: of the run.
        control: the other workers.
        state: copies the state after a step; training stands still for this alone. Collective.
        tell: takes news.
    """

    def __init__(
        self,
        config: CheckpointConfig,
        steps: int,
        checkpoints: Checkpoints,
        control: Deciding,
        state: Callable[[int], State],
        tell: Callable[[News], None],
    ) -> None:
        self._config, self._steps, self._control = config, steps, control
        self._checkpoints, self._saver = checkpoints, Saver(checkpoints, control)
        self._state, self._tell = state, tell
        self._saved_at, self._begun = time.monotonic(), 0
        self._failing = self._uncleared = self._skipping = False
        self.stopping = False
        """Whether the run is to end here, its state saved."""

    def due(self, step: int) -> bool:
        """Whether the state after this step is to be saved."""
        if (outcome := self._saver.poll()) is not None:
            self._settled(outcome)
        config = self._config
        late = config.every_minutes is not None and time.monotonic() - self._saved_at >= 60 * config.every_minutes
        wishes = self._control.wishes(late=late)
        self.stopping = wishes.stop
        if wishes.stop or wishes.leaving or step == self._steps:
            return True
        due = wishes.late or (config.every_steps is not None and step % config.every_steps == 0)
        if due and self._saver.busy:
            self._skip(step)
            return False
        return due

    def _skip(self, step: int) -> None:
        """Training does not wait for a store that is slower than checkpoints come; said once for a row of them."""
        if not self._skipping:
            self._warn(
                f"no checkpoint after step {step}: the one of step {self._begun} is still on its way to the store; "
                "training goes on, and the next one is tried as usual. A larger checkpoint.every_steps (now "
                f"{self._config.every_steps}) or every_minutes (now {self._config.every_minutes}) leaves it more time"
            )
        self._skipping = True

    def save(self, step: int) -> None:
        """Begin to save; at the end, or where the run is to stop, until it is saved.

        Raises:
            StorageError: for a long time it could not be.
        """
        # Still busy with another one only where this one cannot be left out: training has to wait.
        self.wait()
        self._skipping = False
        self._begin(step)
        if step == self._steps or self.stopping:
            self._insist(step)
        if self.stopping and step < self._steps:
            self._tell(Stopping(step))

    def _begin(self, step: int) -> None:
        state = self._state(step)
        self._saved_at, self._begun = time.monotonic(), step
        self._saver.begin(*state, lambda: prune(self._checkpoints, self._config))

    def _settled(self, outcome: Outcome) -> None:
        if outcome.failure:
            self._failed(outcome)
            return
        self._failing = False
        self._tell(Checkpointed(outcome.step))
        if outcome.uncleared and not self._uncleared:
            self._warn(
                f"the checkpoint at step {outcome.step} is saved, but those that are not kept could not be deleted "
                f"({outcome.uncleared}); they take room until they can be, or raylens checkpoints prune is run"
            )
        self._uncleared = bool(outcome.uncleared)

    def _failed(self, outcome: Outcome) -> None:
        why = (
            "either" if self._failing else f"({outcome.failure}); training goes on, and the next one is tried as usual"
        )
        self._failing = True
        self._warn(f"the checkpoint at step {outcome.step} could not be saved {why}")

    def _warn(self, text: str) -> None:
        self._tell(Warned(text))

    def wait(self) -> str:
        """For the attempt that is under way; why it failed, or nothing."""
        outcome = self._saver.wait()
        if outcome is None:
            return ""
        self._settled(outcome)
        return outcome.failure

    def _insist(self, step: int) -> None:
        """Until the checkpoint exists."""
        began, pause = time.monotonic(), 1.0
        while failure := self.wait():
            over = int(time.monotonic() - began > PATIENCE_SECONDS)
            if self._control.most([over])[0]:
                raise StorageError(
                    f"the checkpoint at step {step} could not be saved for {PATIENCE_SECONDS:.0f} s: {failure}. The "
                    "same command resumes from the newest one that could"
                )
            time.sleep(pause)
            pause = min(30.0, 2 * pause)
            self._begin(step)
