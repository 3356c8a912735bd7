"""What each Ray Train worker runs: build the engine, resume, loop."""

import uuid
from dataclasses import dataclass
from typing import Any

import ray.train
import ray.train.torch
import torch
import torch.distributed as dist

from raylens.config import RunConfig
from raylens.data import Plan
from raylens.data.quarantine import check_budget, summary
from raylens.errors import CheckpointError
from raylens.inputs import Preprocess, Tokenizer
from raylens.models import DualEncoder
from raylens.registry import Registry
from raylens.storage import open_store
from raylens.train import loop
from raylens.train.batches import batches
from raylens.train.checkpoint import CheckpointManifest, Checkpoints, SavedFile
from raylens.train.cursor import Cursor
from raylens.train.forward import Forward, forward_of
from raylens.train.metrics import MetricsLog
from raylens.train.micro_batch import fitting
from raylens.train.over_workers import over_workers
from raylens.train.progress import Checkpointed, Metrics, Started, Warned
from raylens.train.zero import ZeroEngine

__all__ = ["WorkerJob", "build_model", "run_worker"]


@dataclass(frozen=True)
class WorkerJob:
    """Everything that a worker is told; travels by pickle."""

    config: RunConfig
    run_uri: str
    plan: Plan
    steps: int
    tokenizer_json: str
    preprocess: Preprocess
    board: Any

    def cursor(self, step: int) -> Cursor:
        """The place in the data after a step."""
        return Cursor.at(step, self.plan, self.config.global_batch)


def build_model(config: RunConfig, tokenizer: Tokenizer, preprocess: Preprocess) -> DualEncoder:
    """The model that a run begins with: the same weights on every worker."""
    torch.manual_seed(config.seed)
    model = DualEncoder(
        config.model,
        end_id=tokenizer.end_id,
        mean=preprocess.mean,
        std=preprocess.std,
        temperature=1.0 / config.objective.initial_scale,
        bias=config.objective.bias,
    )
    if config.start_from is not None:
        _, encoder = Registry(config.registry_uri).load(config.start_from)
        model.load_state_dict(dict(encoder.bundle.weights))
    return model


def run_worker(job: WorkerJob) -> None:
    """Train from the newest checkpoint to the last step."""
    rank = ray.train.get_context().get_world_rank()
    run = open_store(job.run_uri)
    checkpoints = Checkpoints(run)
    model = build_model(job.config, Tokenizer.from_json(job.tokenizer_json), job.preprocess)
    device, newest = ray.train.torch.get_device(), checkpoints.newest()
    forward = forward_of(model, job.config).to(device)
    micro_batch = _micro_batch(job.config, forward, newest, device)
    engine = ZeroEngine(job.config, forward, micro_batch, device)
    start = _resume(job, checkpoints, engine, newest)
    log = MetricsLog(run, start) if rank == 0 else None
    if rank == 0:
        micro_batches = job.config.worker_batch // micro_batch
        job.board.post.remote(Started(start, job.steps, job.config.scale.workers, micro_batch, micro_batches))
    hooks = _Hooks(job, checkpoints, engine, log, start)
    data = batches(ray.train.get_dataset_shard("train"), job.config.worker_batch)
    loop.run(job.config, engine, data, hooks.as_hooks(), rank=rank, start=start, steps=job.steps)
    if log is not None:
        log.publish()


def _micro_batch(config: RunConfig, forward: Forward, newest: CheckpointManifest | None, device: torch.device) -> int:
    """As it is set; as it was, so that a resume rounds alike; or what fits. Collective."""
    if config.scale.micro_batch is not None:
        return config.scale.micro_batch
    if newest is not None and newest.micro_batch is not None and newest.workers == config.scale.workers:
        return newest.micro_batch
    return fitting(forward, config, device, ray.train.get_context().get_local_world_size())


def _resume(job: WorkerJob, checkpoints: Checkpoints, engine: ZeroEngine, newest: CheckpointManifest | None) -> int:
    if newest is None:
        return 0
    check_fits(job, newest)
    checkpoints.load(engine, newest)
    return newest.step


def check_fits(job: WorkerJob, manifest: CheckpointManifest) -> None:
    """Refuse a checkpoint that this run cannot go on from.

    Raises:
        CursorError: it stands in other data or another order.
        CheckpointError: its state is divided otherwise.
    """
    manifest.cursor.check(job.cursor(manifest.step))
    config = job.config
    # At stage 0 every worker holds all of the state, so any number of them can take it up.
    workers = config.scale.workers if manifest.zero_stage == config.zero.stage == 0 else manifest.workers
    for field, saved, now in (
        ("scale.workers", workers, config.scale.workers),
        ("zero.stage", manifest.zero_stage, config.zero.stage),
        ("precision", manifest.precision, config.precision),
    ):
        if saved != now:
            raise CheckpointError(
                f"{field}: the checkpoint at step {manifest.step} has {saved}, this run has {now}: resume with "
                f"--set {field}={saved}, or start a new run with another name"
            )


class _Hooks:
    """What the loop calls on one worker."""

    def __init__(
        self, job: WorkerJob, checkpoints: Checkpoints, engine: ZeroEngine, log: MetricsLog | None, start: int
    ) -> None:
        self._job, self._checkpoints, self._engine, self._log = job, checkpoints, engine, log
        self._start = start
        self._last: loop.Record | None = None

    def as_hooks(self) -> loop.Hooks:
        return loop.Hooks(log=self._record, save=self._save, warn=self._warn)

    def _warn(self, text: str) -> None:
        if self._log is not None:
            self._job.board.post.remote(Warned(text))

    def _record(self, record: loop.Record) -> None:
        record = over_workers(record, ray.train.torch.get_device())
        self._check_quarantine(record)
        if self._log is not None:
            self._log.add(record.as_dict())
            self._job.board.post.remote(Metrics(record, self._job.steps))
        self._last = record

    def _check_quarantine(self, record: loop.Record) -> None:
        read = (record.step - self._start) * self._job.config.global_batch
        run, budget = open_store(self._job.run_uri), self._job.config.data.quarantine_budget
        if record.substituted > budget * read:  # only then are the reasons worth a look at the store
            check_budget(record.substituted, read, budget, f"{summary(run)}; see {run.describe()}/quarantine")

    def _save(self, step: int) -> None:
        config = self._job.config
        attempt = _attempt()

        def describe(files: list[SavedFile]) -> CheckpointManifest:
            return CheckpointManifest(
                step=step,
                attempt=attempt,
                workers=config.scale.workers,
                zero_stage=config.zero.stage,
                precision=config.precision,
                micro_batch=self._engine.micro_batch,
                cursor=self._job.cursor(step),
                files=files,
            )

        self._checkpoints.save(self._engine, attempt, describe)
        if self._log is not None:
            self._log.publish()
            self._checkpoints.prune(config.checkpoint.keep_last)
            self._job.board.post.remote(Checkpointed(step))
        # Only here: a report waits for the controller's next look, which at every record would halve the speed.
        ray.train.report(self._last.as_dict() if self._last else {})


def _attempt() -> str:
    """A name for a try to save that all workers share and no other try has."""
    name = [uuid.uuid4().hex[:8]]
    dist.broadcast_object_list(name, src=0)
    return name[0]
