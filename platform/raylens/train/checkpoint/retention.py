"""Which checkpoints of a run are kept."""

from collections.abc import Mapping

from raylens.config import CheckpointConfig
from raylens.train.checkpoint.store import Checkpoints

__all__ = ["prune", "steps_to_keep"]


def steps_to_keep(metrics: Mapping[int, Mapping[str, float]], config: CheckpointConfig) -> set[int]:
    """The steps to keep, of those with a complete checkpoint.

    Args:
        metrics: by step, what was evaluated before it was saved.
        config: ``keep_last`` newest ones; those at multiples of ``keep_every``; and the ``keep_best`` by a metric.
    """
    steps = sorted(metrics)
    keep = set(steps[-config.keep_last :])
    if config.keep_every is not None:
        keep |= {step for step in steps if step % config.keep_every == 0}
    scored = [(values[config.best_by], step) for step, values in metrics.items() if config.best_by in values]
    # Of equal ones the earlier: what came later did not improve.
    ranked = sorted(scored, key=lambda one: (one[0] if config.lower_is_better else -one[0], one[1]))
    return keep | {step for _, step in ranked[: config.keep_best]}


def prune(checkpoints: Checkpoints, config: CheckpointConfig) -> tuple[list[int], list[str]]:
    """Delete what is not kept, and the files of attempts that never became a checkpoint and cannot any more.

    Returns:
        The steps whose checkpoints are gone, and the leftover files.
    """
    steps = checkpoints.steps()
    metrics = {step: checkpoints.manifest(step).metrics for step in steps}
    gone = sorted(set(steps) - steps_to_keep(metrics, config))
    # Attempts are made one at a time: what lies at or before the newest checkpoint is of none that is under way.
    left = [path for path, step in checkpoints.leftovers().items() if steps and step <= steps[-1]]
    for path in left:
        checkpoints.store.delete(path)
    for step in gone:
        checkpoints.delete(step)
    return gone, left
