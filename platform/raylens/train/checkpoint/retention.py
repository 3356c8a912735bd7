"""The rule that decides which checkpoints of a run are kept."""

from collections.abc import Iterable, Mapping

from raylens.config import CheckpointConfig
from raylens.evaluate import Metric
from raylens.train.checkpoint.store import CheckpointManifest, Checkpoints

__all__ = ["best_scores", "prune", "steps_to_keep"]


def best_scores(manifests: Iterable[CheckpointManifest], config: CheckpointConfig) -> dict[int, Metric | None]:
    """Return the metric by which checkpoints are compared, by step; None if it is unknown, or none is kept for it.

    Raises:
        CheckpointError: the goal of the metric is unknown.
    """
    return {manifest.step: manifest.metric(config.best_by) if config.keep_best else None for manifest in manifests}


def steps_to_keep(scores: Mapping[int, Metric | None], config: CheckpointConfig) -> set[int]:
    """Return the steps whose checkpoints are kept, of those that are complete.

    Args:
        scores: the metric ``best_by`` by step, as it was evaluated before the checkpoint was saved.
        config: keeps the ``keep_last`` newest, the multiples of ``keep_every``, and the ``keep_best`` by a metric.
    """
    steps = sorted(scores)
    keep = set(steps[-config.keep_last :])
    if config.keep_every is not None:
        keep |= {step for step in steps if step % config.keep_every == 0}
    # Of equal values the earlier step is kept: the later one did not improve.
    ranked = sorted((metric.cost, step) for step, metric in scores.items() if metric is not None)
    return keep | {step for _, step in ranked[: config.keep_best]}


def prune(checkpoints: Checkpoints, config: CheckpointConfig) -> tuple[list[int], list[str]]:
    """Delete the checkpoints that are not kept, and the files of attempts that can no longer become a checkpoint.

    Returns:
        The steps whose checkpoints were deleted, and the leftover files.
    """
    steps = checkpoints.steps()
    gone = sorted(set(steps) - steps_to_keep(best_scores(map(checkpoints.manifest, steps), config), config))
    # Only one attempt is in progress at a time: files at or before the newest checkpoint belong to none.
    left = [path for path, step in checkpoints.leftovers().items() if steps and step <= steps[-1]]
    for path in left:
        checkpoints.store.delete(path)
    for step in gone:
        checkpoints.delete(step)
    return gone, left
