"""The registration of a run's newest checkpoint as an encoder."""

import math

from torch import Tensor

from raylens.config import RunConfig
from raylens.errors import CheckpointError
from raylens.registry import Bundle, Lineage, Registry, Selection, Version
from raylens.train.checkpoint.consolidate import Consolidator
from raylens.train.checkpoint.files import read_part
from raylens.train.checkpoint.store import CheckpointManifest, Checkpoints
from raylens.train.loop.schedule import TrainingProgress, log_scale_at
from raylens.train.run.prepare import PreparedRun

__all__ = ["checkpoint_weights", "publish"]


def checkpoint_weights(
    checkpoints: Checkpoints, manifest: CheckpointManifest, config: RunConfig, steps: int
) -> dict[str, Tensor]:
    """Return the weights that a checkpoint's model uses, averaged if the run keeps an average.

    Raises:
        CheckpointError: the checkpoint is damaged.
    """
    assembly = Consolidator(config.model, averaged=config.optim.ema_decay > 0)
    for _, part in checkpoints.parts(manifest, manifest.files):
        assembly.add(*read_part(part))
    weights = assembly.weights()
    scheduled = log_scale_at(config.objective, TrainingProgress(manifest.step - 1, steps))
    if scheduled is not None:
        weights["logit_scale"].fill_(scheduled)
    # The parameter may exceed the cap a little; training used the cap, and so does serving.
    weights["logit_scale"].clamp_(max=math.log(config.objective.max_logit_scale))
    return weights


def publish(
    prepared: PreparedRun, checkpoints: Checkpoints, *, name: str | None = None, selection: Selection | None = None
) -> Version:
    """Register the weights of the newest checkpoint.

    Args:
        prepared: the run.
        checkpoints: its checkpoints.
        name: the name of the model; that of the run by default.
        selection: how a sweep chose the run, if one did.

    Raises:
        CheckpointError: there is no checkpoint, or it is damaged.
    """
    newest = checkpoints.newest()
    if newest is None:
        raise CheckpointError(f"run {prepared.config.name!r} at {prepared.store.describe()} has no checkpoint")
    weights = checkpoint_weights(checkpoints, newest, prepared.config, prepared.steps)
    bundle = Bundle(
        config=prepared.config.model,
        weights=weights,
        tokenizer=prepared.tokenizer,
        preprocess=prepared.preprocess,
        lineage=Lineage(
            run=prepared.store.uri,
            step=newest.step,
            objective=prepared.config.objective.kind,
            weights="average" if prepared.config.optim.ema_decay else "last",
            samples_seen=newest.cursor.position,
            global_batch=prepared.config.global_batch,
            data=tuple(source.uri for source in prepared.config.data.train),
            manifests=tuple(manifest.digest for manifest in prepared.manifests),
            selection=selection,
        ),
    )
    return Registry(prepared.config.registry_uri).publish(name or prepared.config.name, bundle)
