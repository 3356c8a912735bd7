"""The configuration of a sweep, from a file or a recipe."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raylens.config import apply_overrides, validated
from raylens.errors import ConfigError
from raylens.tune import SweepConfig, with_values
from raylens.workloads.recipes import configure
from raylens.workloads.recipes.configure import read_tree
from raylens.workloads.recipes.sweeps import SWEEPS

__all__ = ["configure_sweep"]


def configure_sweep(source: str, assignments: Sequence[str] = ()) -> SweepConfig:
    """Return the checked configuration of a sweep's recipe or YAML file, changed by ``key=value`` assignments.

    A file describes the runs by ``run``, a complete or partial configuration, or by ``recipe``, a training recipe's
    name or file; ``changes`` sets single keys of the recipe by their dotted paths.

    Raises:
        ConfigError: the recipe, the file or a key is unknown, or a value is not allowed.
    """
    if source.endswith((".yaml", ".yml")):
        tree = _from_file(Path(source))
    elif source in SWEEPS:
        tree = SWEEPS[source]().model_dump(mode="json")
    else:
        raise ConfigError(f"unknown sweep {source!r}; sweeps: {', '.join(SWEEPS)}. A file must end in .yaml")
    return validated(SweepConfig, apply_overrides(tree, assignments))


def _from_file(path: Path) -> dict[str, Any]:
    tree = read_tree(path, f"sweeps: {', '.join(SWEEPS)}")
    recipe, changes = tree.pop("recipe", None), tree.pop("changes", {})
    if recipe is None and not changes:
        return tree
    if not isinstance(changes, dict):
        raise ConfigError(f"{path}: changes = {changes!r}: write keys and values, e.g. optim.peak_lr: 1e-3")
    if recipe is None or "run" in tree:
        raise ConfigError(f"{path}: give `run`, or `recipe` with `changes`: now it has {', '.join(sorted(tree))}")
    run = configure(str(recipe)).model_dump(mode="json")
    return {**tree, "run": with_values(run, changes)}
