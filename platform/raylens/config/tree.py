"""Operations on trees of plain values: merging, assignments as in ``--set optim.peak_lr=1e-3``, comparison."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pydantic_core import to_jsonable_python

from raylens.config.yaml_io import parse_yaml
from raylens.errors import ConfigError

__all__ = ["apply_overrides", "differences", "flatten", "merge", "parse_assignment", "value_text"]


def parse_assignment(assignment: str) -> tuple[list[str], Any]:
    """Parse ``"a.b=0.5"`` to ``(["a", "b"], 0.5)``; the value is read as YAML.

    YAML 1.1 reads ``1e-3`` as a string; validation converts it to the number that the field needs.

    Raises:
        ConfigError: there is no ``=``, a part of the key is empty, or the value is not YAML.
    """
    key, equals, text = assignment.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise ConfigError(f"--set {assignment!r}: write it as key=value, e.g. --set optim.peak_lr=1e-3")
    try:
        return path, parse_yaml(text, f"--set {key}: the value {_short(text)}")
    except ConfigError as error:
        raise ConfigError(f"{error}; quote it") from None


def apply_overrides(tree: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Return a copy of ``tree`` with all assignments made in order. Keys are checked when the tree is validated.

    Raises:
        ConfigError: an assignment cannot be read, or names an entry that a list does not have.
    """
    changed = dict(tree)
    for assignment in assignments:
        path, value = parse_assignment(assignment)
        for part in reversed(path):
            value = {part: value}
        changed = merge(changed, value)
    return changed


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``changes`` merged into it, section by section; another ``kind`` has its own defaults."""
    other = "kind" in changes and "kind" in base and changes["kind"] != base["kind"]
    merged = {} if other else dict(base)
    for key, value in changes.items():
        merged[key] = _over(merged.get(key), value, key)
    return merged


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "", ignore: Collection[str] = ()
) -> list[str]:
    """Return a line for each key whose values differ, such as ``optim.peak_lr was 0.1, is now 0.2``.

    Args:
        old: the tree before, of plain values.
        new: the tree after, of plain values.
        prefix: a prefix of each key, with its dot.
        ignore: dotted keys that may differ, with all keys below them.
    """
    lines = []
    for key in [*old, *(key for key in new if key not in old)]:
        was, now = old.get(key), new.get(key)
        if f"{prefix}{key}" in ignore:
            continue
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            lines += differences(was, now, f"{prefix}{key}.", ignore)
        elif was != now:
            lines.append(f"{prefix}{key} was {was!r}, is now {now!r}")
    return lines


def flatten(tree: object, prefix: str = "") -> dict[str, str]:
    """Give each value of a tree a key of its own: ``{"optim": {"peak_lr": 1}}`` becomes ``{"optim.peak_lr": "1"}``.

    A list without lists or mappings in it is one value; the entries of other lists have their indices as keys.
    """
    children: list[tuple[str, object]] = []
    if isinstance(tree, Mapping):
        children = [(str(key), value) for key, value in tree.items()]
    elif isinstance(tree, list | tuple) and any(isinstance(item, Mapping | list | tuple) for item in tree):
        children = [(str(number), value) for number, value in enumerate(tree)]
    if not children:
        return {prefix: value_text(tree)} if prefix else {}
    flat: dict[str, str] = {}
    for key, value in children:
        flat |= flatten(value, f"{prefix}.{key}" if prefix else key)
    return flat


def value_text(value: object) -> str:
    """Write a value as text: a string as it is, anything else as JSON."""
    plain = to_jsonable_python(value, fallback=str)
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def _over(old: Any, value: Any, key: str) -> Any:
    """Merge a mapping into a mapping or, with indices as in ``models.0.port``, into a list; replace anything else."""
    if not isinstance(value, Mapping):
        return value
    if isinstance(old, Mapping):
        return merge(old, value)
    if not value or not isinstance(old, list | tuple) or not all(number.isdecimal() for number in value):
        return value
    entries = list(old)
    for number, change in value.items():
        if int(number) >= len(entries):
            raise ConfigError(f"{key}.{number}: {key} has {len(entries)}, counted from 0")
        entries[int(number)] = _over(entries[int(number)], change, f"{key}.{number}")
    return entries


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:80] + "...")
