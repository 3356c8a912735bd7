"""From a recipe's name or a file to a checked configuration."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raylens.config import RunConfig, apply_overrides, load_yaml, merge, validated
from raylens.errors import ConfigError
from raylens.workloads.recipes.table import RECIPES

__all__ = ["configure", "read_tree"]


def configure(source: str, assignments: Sequence[str] = ()) -> RunConfig:
    """A recipe's name or a YAML file, with ``key=value`` assignments on top, to a checked configuration.

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
    """A file's keys and values.

    Args:
        path: of a YAML file.
        instead: what may be named where it cannot be read.

    Raises:
        ConfigError: there is no such file, or it is no YAML.
    """
    try:
        return load_yaml(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; {instead}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"cannot read {path}: not UTF-8 text") from None
