"""Configuration trees as YAML text."""

from typing import Any

import yaml

from raylens.config.node import Node
from raylens.errors import ConfigError

__all__ = ["dump_yaml", "load_yaml"]


def dump_yaml(node: Node) -> str:
    """The complete tree, in the order of its definition."""
    return yaml.safe_dump(node.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)


def load_yaml(text: str, source: str) -> dict[str, Any]:
    """A mapping read from YAML.

    Raises:
        ConfigError: the text is not YAML or not a mapping; the message names ``source`` and the line.
    """
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{source}{line}: not valid YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{source}: expected keys and values, found {type(tree).__name__}")
    return tree
