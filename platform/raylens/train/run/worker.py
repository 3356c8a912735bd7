"""The training function of a Ray Train worker: it builds the engine, resumes, and runs the loop."""

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
from raylens.train.collective.coordinator import Coordinator
from raylens.train.engine.forward import Forward, build_forward
from raylens.train.engine.micro_batch import fitting_micro_batch, largest_divisor
from raylens.train.engine.zero import ZeroEngine
from raylens.train.loop import loop
from raylens.train.loop.batch import batches
from raylens.train.loop.events import Started
from raylens.train.run.hooks import WorkerHooks
from raylens.train.run.pretrained import load_pretrained
from raylens.train.run.worker_spec import WorkerSpec, check_fits

__all__ = ["build_model", "run_worker"]


def build_model(config: RunConfig, tokenizer: Tokenizer, preprocess: Preprocess) -> DualEncoder:
    """Build the model that a run begins with; its weights are equal on every worker."""
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
        model.load_state_dict(dict(load_pretrained(config).weights))
    return model


def run_worker(spec: WorkerSpec) -> None:
    """Train from the checkpoint at which the stream of data begins, to the last step."""
    spec = _with_workers(spec, ray.train.get_context().get_world_size())
    start = int(ray.get(spec.channel.start.remote()))
    checkpoints = Checkpoints(open_store(spec.run_uri))
    newest = checkpoints.manifest(start) if start else None
    device, coordinator = ray.train.torch.get_device(), Coordinator(spec.channel)
    model = build_model(spec.config, Tokenizer.from_json(spec.tokenizer_json), spec.preprocess)
    forward = build_forward(model, spec.config).to(device)
    micro_batch = _micro_batch(spec.config, forward, newest, device)
    engine = ZeroEngine(spec.config, forward, micro_batch, device)
    if newest is not None:
        _resume(spec, checkpoints, engine, newest, coordinator)
    hooks = WorkerHooks(spec, engine, coordinator, start)
    if coordinator.rank == 0:
        micro_batches = spec.config.worker_batch // micro_batch
        spec.channel.post.remote(Started(start, spec.steps, spec.config.scale.workers, micro_batch, micro_batches))
    data = batches(ray.train.get_dataset_shard("train"), spec.config.worker_batch)
    loop.run(spec.config, engine, data, hooks.as_hooks(), rank=coordinator.rank, start=start, steps=spec.steps)
    hooks.finish()


def _with_workers(spec: WorkerSpec, workers: int) -> WorkerSpec:
    """Return the specification with the actual number of workers."""
    scale = spec.config.scale.model_copy(update={"workers": workers})
    return replace(spec, config=spec.config.model_copy(update={"scale": scale}))


def _micro_batch(config: RunConfig, forward: Forward, newest: CheckpointManifest | None, device: torch.device) -> int:
    """Return the configured micro-batch, that of the checkpoint (which rounds alike), or what fits. Collective."""
    if config.scale.micro_batch is not None and config.worker_batch % config.scale.micro_batch == 0:
        return config.scale.micro_batch
    if newest is not None and newest.workers == config.scale.workers:
        return newest.micro_batch
    fits = fitting_micro_batch(forward, config, device, ray.train.get_context().get_local_world_size())
    return largest_divisor(config.worker_batch, min(fits, config.scale.micro_batch or math.inf))


def _resume(
    spec: WorkerSpec, checkpoints: Checkpoints, engine: ZeroEngine, newest: CheckpointManifest, coordinator: Coordinator
) -> None:
    check_fits(spec, newest)
    same = newest.workers == spec.config.scale.workers
    try:
        pieces, local = checkpoints.pieces(newest, engine.state.wanted(), coordinator.rank if same else None)
        failure: RaylensError | None = None
    except RaylensError as error:
        failure = error
    # All workers fail, or none: otherwise some would wait for the others.
    for outcome in coordinator.all_gather(failure):
        if isinstance(outcome, RaylensError):
            raise outcome
    engine.state.restore(Snapshot(pieces, local, newest.scaler, newest.applied))
