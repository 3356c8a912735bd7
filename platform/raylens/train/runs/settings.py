"""The settings of runs as dotted keys and text: which were changed, and in which runs differ."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import PydanticUndefined, to_jsonable_python

from raylens.config import Node, RunConfig, flatten, validated, value_text

__all__ = ["Change", "changes", "differing"]


@dataclass(frozen=True)
class Change:
    """A setting that differs from its default."""

    key: str
    """The key as ``--set`` takes it, e.g. ``optim.peak_lr``."""
    value: str
    default: str | None
    """The default as text; None for a setting without one."""


def changes(config: Mapping[str, Any]) -> list[Change]:
    """Return the settings of a run that differ from the defaults of `RunConfig`, in the order of the configuration.

    Raises:
        ConfigError: this version of raylens does not know the configuration, or refuses it.
    """
    return list(_changes(validated(RunConfig, config), None, ""))


def differing(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[str | None]]:
    """Return the settings that differ between configurations, with the value in each, or None where it is absent."""
    flats = [flatten(config) for config in configs]
    keys = list(dict.fromkeys(key for settings in flats for key in settings))
    rows = {key: [settings.get(key) for settings in flats] for key in keys}
    return {key: values for key, values in rows.items() if len(set(values)) > 1}


def _changes(node: Node, base: Node | None, prefix: str) -> Iterator[Change]:
    """Yield the changes against ``base``, or against the defaults of the class of ``node`` if there is none."""
    for name, field in type(node).model_fields.items():
        value = getattr(node, name)
        default = getattr(base, name) if base is not None else field.get_default(call_default_factory=True)
        key = f"{prefix}{name}"
        if isinstance(value, Node):
            same = default if isinstance(default, Node) and type(default) is type(value) else None
            if same is None and isinstance(default, Node) and hasattr(value, "kind"):
                # The kind differs from the default's: the rest is compared with the defaults of this kind.
                yield Change(f"{key}.kind", value_text(value.kind), value_text(getattr(default, "kind", None)))
            yield from _changes(value, same, f"{key}.")
        elif default is PydanticUndefined:
            yield from (Change(each, text, None) for each, text in flatten(to_jsonable_python(value), key).items())
        elif value != default:
            yield Change(key, value_text(value), value_text(default))
