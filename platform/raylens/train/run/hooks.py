"""What the loop calls on a Ray Train worker: records, evaluations and checkpoints, brought together."""

import uuid

import ray.train
import ray.train.torch

from raylens.storage import open_store
from raylens.train.checkpoint.policy import Saving, State
from raylens.train.checkpoint.store import CheckpointManifest, Checkpoints
from raylens.train.collective.coordinator import Control
from raylens.train.engine.zero import ZeroEngine
from raylens.train.evaluation.evaluator import Evaluator
from raylens.train.loop import loop
from raylens.train.loop.events import News, Warned
from raylens.train.loop.schedule import Moment
from raylens.train.run.metrics_logger import Records
from raylens.train.run.worker_spec import WorkerJob

__all__ = ["WorkerHooks"]


class WorkerHooks:
    """Of one worker. All methods are collective."""

    def __init__(self, job: WorkerJob, engine: ZeroEngine, control: Control, start: int) -> None:
        self._job, self._engine, self._control = job, engine, control
        checkpoints = Checkpoints(open_store(job.run_uri))
        self._saving = Saving(job.config.checkpoint, job.steps, checkpoints, control, self._state, self._tell)
        self._records = Records(job, control, start, ray.train.torch.get_device(), self._tell)
        self._evaluator = Evaluator(job, control)
        self._problem = ""

    def as_hooks(self) -> loop.Hooks:
        """For the loop."""
        return loop.Hooks(
            log=self._records.add,
            due=self._saving.due,
            save=self._save,
            stopping=lambda: self._saving.stopping,
            warn=self._warn,
            evaluate=self._evaluate,
        )

    def _tell(self, news: News) -> None:
        if self._control.rank == 0:
            self._job.board.post.remote(news)

    def _warn(self, text: str) -> None:
        self._tell(Warned(text))

    def _evaluate(self, step: int, saving: bool) -> float:
        self._hear()
        if not self._evaluator.due(step, saving=saving):
            return 0.0
        with self._engine.averaged(Moment(step - 1, self._job.steps)) as forward:
            return self._evaluator.begin(step, forward, self._engine.micro_batch, ray.train.torch.get_device())

    def _hear(self) -> None:
        """What evaluations found, once it is worked out. Not collective."""
        while (found := self._evaluator.poll()) is not None:
            if found.problem and found.problem != self._problem:
                self._warn(f"evaluation after step {found.step}: {found.problem}")
            self._problem = found.problem
            if found.metrics:
                self._records.evaluated(found)

    def _save(self, step: int) -> None:
        self._saving.save(step)
        # Only here: a report waits for the controller's next look, which at every record would halve the speed.
        ray.train.report(self._records.last.as_dict() if self._records.last else {})

    def _state(self, step: int) -> State:
        config = self._job.config
        snapshot = self._engine.state.snapshot()
        manifest = CheckpointManifest(
            step=step,
            attempt=str(self._control.all_of(uuid.uuid4().hex[:8])[0]),
            workers=config.resources.workers,
            zero_stage=config.zero.stage,
            precision=config.precision,
            micro_batch=self._engine.micro_batch,
            applied=snapshot.applied,
            scaler=snapshot.scaler,
            cursor=self._job.cursor(step),
        )
        self._records.publish()
        return State(snapshot, manifest, self._evaluator.later(step))

    def finish(self) -> None:
        """After the last step: what was recorded is written."""
        self._saving.wait()
        self._evaluator.wait()
        self._hear()
        self._records.flush()
