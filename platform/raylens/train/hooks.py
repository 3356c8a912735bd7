"""What the loop calls on a Ray Train worker: records, checkpoints, and what to do when they do not work."""

import time
import uuid

import ray.train
import ray.train.torch

from raylens.errors import StorageError
from raylens.storage import open_store
from raylens.train import loop
from raylens.train.checkpoint import CheckpointManifest, Checkpoints
from raylens.train.control import Control
from raylens.train.evaluation.evaluator import Evaluator, Finding
from raylens.train.job import WorkerJob
from raylens.train.progress import Checkpointed, News, Stopping, Warned
from raylens.train.records import Records
from raylens.train.retention import prune
from raylens.train.saver import Outcome, Saver
from raylens.train.schedule import Moment
from raylens.train.zero import ZeroEngine

__all__ = ["WorkerHooks"]

PATIENCE_SECONDS = 600.0
"""So long is the last checkpoint of a run tried again; nothing else is left to do."""


class WorkerHooks:
    """Of one worker. All methods are collective."""

    def __init__(self, job: WorkerJob, engine: ZeroEngine, control: Control, start: int) -> None:
        self._job, self._engine, self._control = job, engine, control
        self._checkpoints = Checkpoints(open_store(job.run_uri))
        self._saver = Saver(self._checkpoints, control)
        self._records = Records(job, control, start, ray.train.torch.get_device(), self._tell)
        self._evaluator = Evaluator(job, control)
        self._found = Finding(0, {}, 0.0)
        self._saved_at = time.monotonic()
        self._stopping = self._failing = False

    def as_hooks(self) -> loop.Hooks:
        """For the loop."""
        return loop.Hooks(
            log=self._records.add,
            due=self._due,
            save=self._save,
            stopping=lambda: self._stopping,
            warn=self._warn,
            evaluate=self._evaluate,
        )

    def _tell(self, news: News) -> None:
        if self._control.rank == 0:
            self._job.board.post.remote(news)

    def _warn(self, text: str) -> None:
        self._tell(Warned(text))

    def _evaluate(self, step: int) -> float:
        self._hear()
        if not self._evaluator.due(step):
            return 0.0
        with self._engine.averaged(Moment(step - 1, self._job.steps)) as forward:
            return self._evaluator.begin(step, forward, self._engine.micro_batch, ray.train.torch.get_device())

    def _hear(self) -> None:
        """What the last evaluation found, once it is worked out. Not collective."""
        found = self._evaluator.poll()
        if found is None:
            return
        if found.problem and found.problem != self._found.problem:
            self._warn(f"warning: evaluation after step {found.step}: {found.problem}")
        self._found = found
        if found.metrics:
            self._records.evaluated(found)

    def _wait_for_figures(self) -> None:
        self._evaluator.wait()
        self._hear()

    def _due(self, step: int) -> bool:
        if (outcome := self._saver.poll()) is not None:
            self._settled(outcome)
        config = self._job.config.checkpoint
        late = config.every_minutes is not None and time.monotonic() - self._saved_at >= 60 * config.every_minutes
        wishes = self._control.wishes(due=late)
        self._stopping = wishes.stop
        return wishes.save or (config.every_steps is not None and step % config.every_steps == 0)

    def _save(self, step: int) -> None:
        self._wait()
        self._begin(step)
        if step == self._job.steps or self._stopping:
            self._insist(step)
        if self._stopping and step < self._job.steps:
            self._tell(Stopping(step))
        # Only here: a report waits for the controller's next look, which at every record would halve the speed.
        ray.train.report(self._records.last.as_dict() if self._records.last else {})

    def _begin(self, step: int) -> None:
        config = self._job.config
        snapshot = self._engine.state.snapshot()
        self._wait_for_figures()
        manifest = CheckpointManifest(
            step=step,
            attempt=str(self._control.all_of(uuid.uuid4().hex[:8])[0]),
            workers=config.scale.workers,
            zero_stage=config.zero.stage,
            precision=config.precision,
            micro_batch=self._engine.micro_batch,
            applied=snapshot.applied,
            scaler=snapshot.scaler,
            cursor=self._job.cursor(step),
            metrics=self._found.metrics if self._found.step == step else {},
        )
        self._records.publish()
        self._saved_at = time.monotonic()
        self._saver.begin(snapshot, manifest, self._clear)

    def _clear(self) -> None:
        """On the first worker, in the saver's thread: delete what is not kept, and what broken attempts left."""
        prune(self._checkpoints, self._job.config.checkpoint)

    def _settled(self, outcome: Outcome) -> None:
        if not outcome.failure:
            self._failing = False
            self._tell(Checkpointed(outcome.step))
            return
        why = (
            "either" if self._failing else f"({outcome.failure}); training goes on, and the next one is tried as usual"
        )
        self._failing = True
        self._warn(f"warning: the checkpoint at step {outcome.step} could not be saved {why}")

    def _wait(self) -> str:
        """For the attempt that is under way; why it failed, or nothing."""
        outcome = self._saver.wait()
        if outcome is None:
            return ""
        self._settled(outcome)
        return outcome.failure

    def _insist(self, step: int) -> None:
        """Until the checkpoint exists.

        Raises:
            StorageError: for a long time it could not be saved.
        """
        began, pause = time.monotonic(), 1.0
        while failure := self._wait():
            over = int(time.monotonic() - began > PATIENCE_SECONDS)
            if self._control.most([over])[0]:
                raise StorageError(
                    f"the checkpoint at step {step} could not be saved for {PATIENCE_SECONDS:.0f} s: {failure}. The "
                    "same command resumes from the newest one that could"
                )
            time.sleep(pause)
            pause = min(30.0, 2 * pause)
            self._begin(step)

    def finish(self) -> None:
        """After the last step: what was recorded is written."""
        self._wait()
        self._records.flush()
