"""The configuration of a run, from a recipe or a file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raylens.config import RunConfig, apply_overrides, load_yaml, merge, validated
from raylens.errors import ConfigError
from raylens.workloads.recipes.table import RECIPES

__all__ = ["configure", "read_tree"]


def configure(source: str, assignments: Sequence[str] = ()) -> RunConfig:
    """Return the checked configuration of a recipe or a YAML file, changed by ``key=value`` assignments.

    A file is either complete or names a recipe under ``recipe:`` and the keys that it changes.

    Raises:
        ConfigError: the recipe, the file or a key is unknown, or a value is not allowed.
    """
    tree = _from_file(Path(source)) if source.endswith((".yaml", ".yml")) else _from_recipe(source)
    return validated(RunConfig, apply_overrides(tree, assignments))


def _from_recipe(name: str) -> dict[str, Any]:
    if name not in RECIPES:
        raise ConfigError(f"unknown recipe {name!r}; recipes: {', '.join(RECIPES)}. A file must end in .yaml")
    return RECIPES[name]().model_dump(mode="json")


def _from_file(path: Path) -> dict[str, Any]:
    tree = read_tree(path, f"recipes: {', '.join(RECIPES)}")
    base = tree.pop("recipe", None)
    return tree if base is None else merge(_from_recipe(str(base)), tree)


def read_tree(path: Path, instead: str) -> dict[str, Any]:
    """Read the keys and values of a YAML file.

    Args:
        path: the path of the file.
        instead: names for the error message what may be given in place of a file.

    Raises:
        ConfigError: the file does not exist, or is not YAML.
    """
    try:
        return load_yaml(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; {instead}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"cannot read {path}: not UTF-8 text") from None
