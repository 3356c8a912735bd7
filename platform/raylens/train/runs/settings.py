"""The settings of runs as flat keys and text: those that were changed, and those in which runs differ."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import PydanticUndefined, to_jsonable_python

from raylens.config import Node, RunConfig, flatten, validated
from raylens.config.tree import value_text

__all__ = ["Change", "changes", "differing"]


@dataclass(frozen=True)
class Change:
    """A setting that is not at its default."""

    key: str
    """As ``--set`` takes it, e.g. ``optim.peak_lr``."""
    value: str
    default: str | None
    """None for a setting that has none."""


def changes(config: Mapping[str, Any]) -> list[Change]:
    """What a run was given that `RunConfig` would not have had by itself, in the order of the configuration.

    Raises:
        ConfigError: this version of raylens does not know the configuration, or would refuse it.
    """
    return list(_changes(validated(RunConfig, config), None, ""))


def differing(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[str | None]]:
    """The settings that are not equal in all configurations, with the value in each; None where it has none."""
    flats = [flatten(config) for config in configs]
    keys = list(dict.fromkeys(key for one in flats for key in one))
    rows = {key: [one.get(key) for one in flats] for key in keys}
    return {key: values for key, values in rows.items() if len(set(values)) > 1}


def _changes(node: Node, base: Node | None, prefix: str) -> Iterator[Change]:
    """Against ``base``, or where there is none against what the class of ``node`` has by itself."""
    for name, field in type(node).model_fields.items():
        value = getattr(node, name)
        default = getattr(base, name) if base is not None else field.get_default(call_default_factory=True)
        key = f"{prefix}{name}"
        if isinstance(value, Node):
            same = default if isinstance(default, Node) and type(default) is type(value) else None
            if same is None and isinstance(default, Node) and hasattr(value, "kind"):
                # Of another kind than the default: the rest is compared with what this kind has by itself.
                yield Change(f"{key}.kind", value_text(value.kind), value_text(getattr(default, "kind", None)))
            yield from _changes(value, same, f"{key}.")
        elif default is PydanticUndefined:
            yield from (Change(each, text, None) for each, text in flatten(to_jsonable_python(value), key).items())
        elif value != default:
            yield Change(key, value_text(value), value_text(default))
