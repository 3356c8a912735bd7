"""The work of ``raylens checkpoints``: list, verify and prune the checkpoints of a run."""

from collections.abc import Callable

from rich.table import Table

from raylens.config import CheckpointConfig, apply_overrides, load_yaml, validated
from raylens.errors import ConfigError, NotFoundError, RaylensError
from raylens.storage import open_store
from raylens.train.checkpoint import Checkpoints, best_scores, prune, steps_to_keep

__all__ = ["checkpoints_of", "delete_unkept", "listing", "verified"]

UNIT = 1 << 20


def checkpoints_of(run: str) -> tuple[Checkpoints, CheckpointConfig]:
    """Open the checkpoints of a run, and read from its configuration which of them are kept.

    Raises:
        NotFoundError: there is no such run.
        ConfigError: this version does not know the checkpoint settings of the run.
    """
    store = open_store(run)
    try:
        text = store.read_text("config.yaml")
    except NotFoundError:
        raise NotFoundError(
            f"{store.describe()} is no training run, it has no config.yaml: see `raylens runs list STORAGE`"
        ) from None
    name = f"{store.describe()}/config.yaml"
    saved = load_yaml(text, name).get("checkpoint", {})
    if not isinstance(saved, dict):
        raise ConfigError(f"{name}: checkpoint = {saved!r}: expected keys and values")
    try:
        return Checkpoints(store), validated(CheckpointConfig, saved)
    except ConfigError as error:
        raise ConfigError(f"{name}, checkpoint: {error}") from None


def listing(run: str) -> Table:
    """Return a table with a row for each checkpoint, and one for the leftovers of broken attempts."""
    checkpoints, config = checkpoints_of(run)
    manifests = [checkpoints.manifest(step) for step in checkpoints.steps()]
    keep = steps_to_keep(best_scores(manifests, config), config)
    table = Table("step", "samples seen", "workers", "ZeRO", "MiB", "files", "kept", "evaluated")
    for manifest in manifests:
        values = "  ".join(f"{name} {value:.4g}" for name, value in manifest.metrics.items())
        size = f"{manifest.size / UNIT:,.1f}"
        row = (manifest.step, f"{manifest.cursor.position:,}", manifest.workers, manifest.zero_stage, size)
        table.add_row(*map(str, row), str(len(manifest.files)), "yes" if manifest.step in keep else "no", values)
    if left := checkpoints.leftovers():
        table.add_row(*[""] * 5, str(len(left)), "no", "of attempts that never became a checkpoint")
    return table


def verified(run: str, steps: list[int], say: Callable[[str], None]) -> list[str]:
    """Read every file of the checkpoints (all, or those at ``steps``), compare its hash, and return the failures."""
    checkpoints, _ = checkpoints_of(run)
    have = checkpoints.steps()
    if unknown := sorted(set(steps) - set(have)):
        raise NotFoundError(
            f"no checkpoint at step {', '.join(map(str, unknown))}; there are {', '.join(map(str, have)) or 'none'}"
        )
    failures = []
    for step in steps or have:
        try:
            manifest = checkpoints.manifest(step)
            count = sum(1 for _ in checkpoints.parts(manifest, manifest.files))
        except RaylensError as error:
            failures.append(str(error))
        else:
            say(f"step {step}: {count} files, {manifest.size / UNIT:,.1f} MiB, all as they were saved")
    return failures


def delete_unkept(run: str, assignments: list[str], *, really: bool) -> tuple[list[int], list[str]]:
    """Delete what the run's settings, changed by ``assignments``, do not keep; or only return what that would be.

    Returns:
        The steps of the deleted checkpoints, and the leftover files.
    """
    checkpoints, config = checkpoints_of(run)
    config = validated(CheckpointConfig, apply_overrides(config.model_dump(), assignments))
    if really:
        return prune(checkpoints, config)
    steps = checkpoints.steps()
    gone = set(steps) - steps_to_keep(best_scores(map(checkpoints.manifest, steps), config), config)
    return sorted(gone), [path for path, step in checkpoints.leftovers().items() if steps and step <= steps[-1]]
