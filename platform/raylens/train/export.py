"""From the last checkpoint to a registered encoder."""

import math
import tempfile
from pathlib import Path

from raylens.errors import CheckpointError
from raylens.registry import Bundle, Registry, Version
from raylens.train.checkpoint import Checkpoints
from raylens.train.prepare import Prepared
from raylens.train.zero import fp32_weights

__all__ = ["publish"]


def publish(prepared: Prepared, checkpoints: Checkpoints) -> Version:
    """Register the weights of the newest checkpoint under the run's name.

    Raises:
        CheckpointError: there is no checkpoint, or it is damaged.
    """
    newest = checkpoints.newest()
    if newest is None:
        raise CheckpointError(f"run {prepared.config.name!r} at {prepared.store.describe()} has no checkpoint")
    with tempfile.TemporaryDirectory(prefix="raylens-export-") as folder:
        checkpoints.fetch(newest, newest.files, Path(folder))
        weights = fp32_weights(Path(folder), newest.zero_stage)
    # The parameter may have stepped a little over the cap; what was used, and so what is served, is the cap.
    weights["logit_scale"].clamp_(max=math.log(prepared.config.objective.max_logit_scale))
    bundle = Bundle(
        config=prepared.config.model,
        weights=weights,
        tokenizer=prepared.tokenizer,
        preprocess=prepared.preprocess,
        lineage={
            "run": prepared.store.uri,
            "step": newest.step,
            "objective": prepared.config.objective.kind,
            "samples_seen": newest.cursor.position,
            "global_batch": prepared.config.global_batch,
            "manifests": [manifest.digest for manifest in prepared.manifests],
        },
    )
    return Registry(prepared.config.registry_uri).publish(prepared.config.name, bundle)
