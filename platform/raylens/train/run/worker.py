"""What each Ray Train worker runs: build the engine, resume, loop."""

import math
from dataclasses import replace

import ray
import ray.train
import ray.train.torch
import torch

from raylens.config import RunConfig
from raylens.errors import RaylensError
from raylens.inputs import Preprocess, Tokenizer
from raylens.models import DualEncoder
from raylens.storage import open_store
from raylens.train.checkpoint.snapshot import Snapshot
from raylens.train.checkpoint.store import CheckpointManifest, Checkpoints
from raylens.train.collective.coordinator import Control
from raylens.train.engine.forward import Forward, forward_of
from raylens.train.engine.micro_batch import fitting, largest_divisor
from raylens.train.engine.zero import ZeroEngine
from raylens.train.loop import loop
from raylens.train.loop.batches import batches
from raylens.train.loop.events import Started
from raylens.train.run.hooks import WorkerHooks
from raylens.train.run.pretrained import beginning
from raylens.train.run.worker_spec import WorkerJob, check_fits

__all__ = ["build_model", "run_worker"]


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
        model.load_state_dict(dict(beginning(config).weights))
    return model


def run_worker(job: WorkerJob) -> None:
    """Train from the checkpoint that the stream of data begins behind, to the last step."""
    job = _as_many(job, ray.train.get_context().get_world_size())
    start = int(ray.get(job.board.start.remote()))
    checkpoints = Checkpoints(open_store(job.run_uri))
    newest = checkpoints.manifest(start) if start else None
    device, control = ray.train.torch.get_device(), Control(job.board)
    model = build_model(job.config, Tokenizer.from_json(job.tokenizer_json), job.preprocess)
    forward = forward_of(model, job.config).to(device)
    micro_batch = _micro_batch(job.config, forward, newest, device)
    engine = ZeroEngine(job.config, forward, micro_batch, device)
    if newest is not None:
        _resume(job, checkpoints, engine, newest, control)
    hooks = WorkerHooks(job, engine, control, start)
    if control.rank == 0:
        micro_batches = job.config.worker_batch // micro_batch
        job.board.post.remote(Started(start, job.steps, job.config.resources.workers, micro_batch, micro_batches))
    data = batches(ray.train.get_dataset_shard("train"), job.config.worker_batch)
    loop.run(job.config, engine, data, hooks.as_hooks(), rank=control.rank, start=start, steps=job.steps)
    hooks.finish()


def _as_many(job: WorkerJob, workers: int) -> WorkerJob:
    """The job with as many workers as there are."""
    resources = job.config.resources.model_copy(update={"workers": workers})
    return replace(job, config=job.config.model_copy(update={"resources": resources}))


def _micro_batch(config: RunConfig, forward: Forward, newest: CheckpointManifest | None, device: torch.device) -> int:
    """As it is set; as it was, so that a resume rounds alike; or what fits. Collective."""
    if config.resources.micro_batch is not None and config.worker_batch % config.resources.micro_batch == 0:
        return config.resources.micro_batch
    if newest is not None and newest.workers == config.resources.workers:
        return newest.micro_batch
    fits = fitting(forward, config, device, ray.train.get_context().get_local_world_size())
    return largest_divisor(config.worker_batch, min(fits, config.resources.micro_batch or math.inf))


def _resume(
    job: WorkerJob, checkpoints: Checkpoints, engine: ZeroEngine, newest: CheckpointManifest, control: Control
) -> None:
    check_fits(job, newest)
    same = newest.workers == job.config.resources.workers
    try:
        pieces, own = checkpoints.pieces(newest, engine.state.wanted(), control.rank if same else None)
        failure: RaylensError | None = None
    except RaylensError as error:
        failure = error
    # All or none: nobody is left waiting for the others.
    for one in control.all_of(failure):
        if isinstance(one, RaylensError):
            raise one
    engine.state.restore(Snapshot(pieces, own, newest.scaler, newest.applied))
