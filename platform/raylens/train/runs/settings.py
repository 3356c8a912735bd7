"""The settings of runs as dotted keys and text: which were changed, and in which runs differ."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import PydanticUndefined, to_jsonable_python

from raylens.config import Node, RunConfig, validated

__all__ = ["Change", "changes", "differing", "flat"]


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
    flats = [flat(config) for config in configs]
    keys = list(dict.fromkeys(key for settings in flats for key in settings))
    rows = {key: [settings.get(key) for settings in flats] for key in keys}
    return {key: values for key, values in rows.items() if len(set(values)) > 1}


def flat(tree: object, prefix: str = "") -> dict[str, str]:
    """Return a configuration with dotted keys: ``{"optim": {"peak_lr": 1}}`` becomes ``{"optim.peak_lr": "1"}``."""
    children: list[tuple[str, object]] = []
    if isinstance(tree, Mapping):
        children = [(str(key), value) for key, value in tree.items()]
    elif isinstance(tree, list | tuple) and any(isinstance(item, Mapping | list | tuple) for item in tree):
        children = [(str(number), value) for number, value in enumerate(tree)]
    if not children:
        return {prefix: _text(tree)} if prefix else {}
    leaves: dict[str, str] = {}
    for key, value in children:
        leaves |= flat(value, f"{prefix}.{key}" if prefix else key)
    return leaves


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
                yield Change(f"{key}.kind", _text(value.kind), _text(getattr(default, "kind", None)))
            yield from _changes(value, same, f"{key}.")
        elif default is PydanticUndefined:
            yield from (Change(each, text, None) for each, text in flat(to_jsonable_python(value), key).items())
        elif value != default:
            yield Change(key, _text(value), _text(default))


def _text(value: object) -> str:
    plain = to_jsonable_python(value, fallback=str)
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)
