"""Which checkpoints of a run are kept."""

from collections.abc import Iterable, Mapping

from raylens.config import CheckpointConfig
from raylens.evaluate.metrics import Metric
from raylens.train.checkpoint.store import CheckpointManifest, Checkpoints

__all__ = ["kept", "prune", "scores"]


def scores(manifests: Iterable[CheckpointManifest], config: CheckpointConfig) -> dict[int, Metric | None]:
    """The metric that checkpoints are compared by, by step; None where it is not known, or none is kept for it.

    Raises:
        CheckpointError: nothing says whether a higher or a lower value of it is better.
    """
    return {one.step: one.metric(config.best_by) if config.keep_best else None for one in manifests}


def kept(scores: Mapping[int, Metric | None], config: CheckpointConfig) -> set[int]:
    """The steps to keep, of those with a complete checkpoint.

    Args:
        scores: the metric ``best_by`` by step, as it was evaluated before the checkpoint was saved.
        config: ``keep_last`` newest ones; those at multiples of ``keep_every``; and the ``keep_best`` by a metric.
    """
    steps = sorted(scores)
    keep = set(steps[-config.keep_last :])
    if config.keep_every is not None:
        keep |= {step for step in steps if step % config.keep_every == 0}
    # Of equal ones the earlier: what came later did not improve.
    ranked = sorted((metric.cost, step) for step, metric in scores.items() if metric is not None)
    return keep | {step for _, step in ranked[: config.keep_best]}


def prune(checkpoints: Checkpoints, config: CheckpointConfig) -> tuple[list[int], list[str]]:
    """Delete what is not kept, and the files of attempts that never became a checkpoint and cannot any more.

    Returns:
        The steps whose checkpoints are gone, and the leftover files.
    """
    steps = checkpoints.steps()
    gone = sorted(set(steps) - kept(scores(map(checkpoints.manifest, steps), config), config))
    # Attempts are made one at a time: what lies at or before the newest checkpoint is of none that is under way.
    left = [path for path, step in checkpoints.leftovers().items() if steps and step <= steps[-1]]
    for path in left:
        checkpoints.store.delete(path)
    for step in gone:
        checkpoints.delete(step)
    return gone, left
