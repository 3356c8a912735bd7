"""The rule that decides which checkpoints of a run are kept."""

from collections.abc import Mapping

from raylens.config import CheckpointConfig
from raylens.train.checkpoint.store import Checkpoints

__all__ = ["prune", "steps_to_keep"]


def steps_to_keep(metrics: Mapping[int, Mapping[str, float]], config: CheckpointConfig) -> set[int]:
    """Return the steps whose checkpoints are kept, of those that are complete.

    Args:
        metrics: by step, the metrics that were evaluated before the checkpoint was saved.
        config: keeps the ``keep_last`` newest, the multiples of ``keep_every``, and the ``keep_best`` by a metric.
    """
    steps = sorted(metrics)
    keep = set(steps[-config.keep_last :])
    if config.keep_every is not None:
        keep |= {step for step in steps if step % config.keep_every == 0}
    scored = [(values[config.best_by], step) for step, values in metrics.items() if config.best_by in values]
    # Of equal values the earlier step is kept: the later one did not improve.
    ranked = sorted(scored, key=lambda pair: (pair[0] if config.lower_is_better else -pair[0], pair[1]))
    return keep | {step for _, step in ranked[: config.keep_best]}


def prune(checkpoints: Checkpoints, config: CheckpointConfig) -> tuple[list[int], list[str]]:
    """Delete the checkpoints that are not kept, and the files of attempts that can no longer become a checkpoint.

    Returns:
        The steps whose checkpoints were deleted, and the leftover files.
    """
    steps = checkpoints.steps()
    metrics = {step: checkpoints.manifest(step).metrics for step in steps}
    gone = sorted(set(steps) - steps_to_keep(metrics, config))
    # Only one attempt is in progress at a time: files at or before the newest checkpoint belong to none.
    left = [path for path, step in checkpoints.leftovers().items() if steps and step <= steps[-1]]
    for path in left:
        checkpoints.store.delete(path)
    for step in gone:
        checkpoints.delete(step)
    return gone, left
