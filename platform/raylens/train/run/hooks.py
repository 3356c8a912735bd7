"""The hooks of the training loop on a Ray Train worker: metrics, evaluations and checkpoints."""

import uuid

import ray.train
import ray.train.torch

from raylens.storage import open_store
from raylens.train.checkpoint.policy import CheckpointPolicy, SaveRequest
from raylens.train.checkpoint.store import CheckpointManifest, Checkpoints
from raylens.train.collective.coordinator import Coordinator
from raylens.train.engine.zero import ZeroEngine
from raylens.train.evaluation.evaluator import Evaluator
from raylens.train.loop import loop
from raylens.train.loop.events import RunEvent, Warned
from raylens.train.loop.schedule import TrainingProgress
from raylens.train.run.metrics_logger import MetricsLogger
from raylens.train.run.worker_spec import WorkerSpec

__all__ = ["WorkerHooks"]


class WorkerHooks:
    """The hooks of one worker; all methods are collective."""

    def __init__(self, spec: WorkerSpec, engine: ZeroEngine, coordinator: Coordinator, start: int) -> None:
        self._spec, self._engine, self._coordinator = spec, engine, coordinator
        checkpoints = Checkpoints(open_store(spec.run_uri))
        self._saving = CheckpointPolicy(
            spec.config.checkpoint, spec.steps, checkpoints, coordinator, self._state, self._on_event
        )
        self._metrics = MetricsLogger(spec, coordinator, start, ray.train.torch.get_device(), self._on_event)
        self._evaluator = Evaluator(
            spec.config, spec.evaluation, spec.tokenizer, spec.preprocess, coordinator, steps=spec.steps
        )
        self._problem = ""

    def as_hooks(self) -> loop.Hooks:
        """Return the functions that the loop calls."""
        return loop.Hooks(
            log=self._metrics.add,
            due=self._saving.due,
            save=self._save,
            stopping=lambda: self._saving.stopping,
            warn=self._warn,
            evaluate=self._evaluate,
        )

    def _on_event(self, event: RunEvent) -> None:
        if self._coordinator.rank == 0:
            self._spec.channel.post.remote(event)

    def _warn(self, text: str) -> None:
        self._on_event(Warned(text))

    def _evaluate(self, step: int, saving: bool) -> float:
        self._log_evaluations()
        if not self._evaluator.due(step, saving=saving):
            return 0.0
        with self._engine.averaged(TrainingProgress(step - 1, self._spec.steps)) as forward:
            return self._evaluator.begin(step, forward, self._engine.micro_batch, ray.train.torch.get_device())

    def _log_evaluations(self) -> None:
        """Log the evaluations whose metrics have been computed. Not collective."""
        while (result := self._evaluator.poll()) is not None:
            if result.problem and result.problem != self._problem:
                self._warn(f"evaluation after step {result.step}: {result.problem}")
            self._problem = result.problem
            if result.metrics:
                self._metrics.evaluated(result)

    def _save(self, step: int) -> None:
        self._saving.save(step)
        # Only here: a report waits for the controller's next poll, which at every record would halve the speed.
        ray.train.report(self._metrics.last.as_dict() if self._metrics.last else {})

    def _state(self, step: int) -> SaveRequest:
        config = self._spec.config
        snapshot = self._engine.state.snapshot()
        manifest = CheckpointManifest(
            step=step,
            attempt=str(self._coordinator.all_gather(uuid.uuid4().hex[:8])[0]),
            workers=config.scale.workers,
            zero_stage=config.zero.stage,
            precision=config.precision,
            micro_batch=self._engine.micro_batch,
            applied=snapshot.applied,
            scaler=snapshot.scaler,
            cursor=self._spec.cursor(step),
        )
        self._metrics.publish()
        return SaveRequest(snapshot, manifest, self._evaluator.later(step))

    def finish(self) -> None:
        """Wait for checkpoint and evaluation after the last step, and write what was recorded."""
        self._saving.wait()
        self._evaluator.wait()
        self._log_evaluations()
        self._metrics.flush()
