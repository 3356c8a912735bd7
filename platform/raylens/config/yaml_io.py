"""Reading and writing of configuration trees as YAML."""

from typing import Any

import yaml

from raylens.config.node import Node
from raylens.errors import ConfigError

__all__ = ["dump_yaml", "load_yaml", "parse_yaml"]


def dump_yaml(node: Node) -> str:
    """Write the complete tree as YAML, in the order of its definition."""
    return yaml.dump(node.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def load_yaml(text: str, source: str) -> dict[str, Any]:
    """Read a mapping from YAML text.

    Raises:
        ConfigError: the text is not YAML or not a mapping; the message names ``source`` and the line.
    """
    tree = parse_yaml(text, source)
    if not isinstance(tree, dict):
        raise ConfigError(f"{source}: expected keys and values, not {type(tree).__name__}")
    return tree


def parse_yaml(text: str, source: str) -> Any:
    """Parse YAML text as one value.

    Raises:
        ConfigError: the text is not YAML, or a key occurs twice; the message names ``source`` and the line.
    """
    try:
        return _UniqueKeys(text).get_single_data()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", error)).split())
        raise ConfigError(f"{source}{line}: not valid YAML: {problem}") from None
    except (ValueError, RecursionError) as error:  # 2001-99-99, 0x_, thousands of digits or of brackets
        raise ConfigError(f"{source}: not valid YAML: {error}") from None


class _Dumper(yaml.SafeDumper):
    """A dumper that escapes Unicode's line separators, which PyYAML writes unchanged and reads as plain line ends."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        style = '"' if any(separator in data for separator in "\x85\u2028\u2029") else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _Dumper.represent_str)


class _UniqueKeys(yaml.SafeLoader):
    """A loader that refuses a key that occurs twice, of which PyYAML silently keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        problem=f"the key {key.value!r} occurs twice", problem_mark=key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)
