"""Configuration files of other programs: what is in them, and what raylens has no counterpart for."""

import json
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from raylens.errors import BundleError

__all__ = ["checked", "number", "read_json", "section"]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        BundleError: the file is missing or holds something else.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError(f"no such file: {path}") from None
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read: {error}") from None
    if not isinstance(tree, dict):
        raise BundleError(f"{path} holds a {type(tree).__name__}, expected an object")
    return tree


def section(tree: Mapping[str, Any], key: str, what: str) -> Mapping[str, Any]:
    """An object inside of an object.

    Raises:
        BundleError: it is not there.
    """
    found = tree.get(key)
    if not isinstance(found, Mapping):
        raise BundleError(f"{what} has no {key}: its keys are {', '.join(sorted(tree)[:8])}")
    return found


def checked(tree: Mapping[str, Any], known: Set[str], neutral: Mapping[str, tuple[Any, ...]], what: str) -> None:
    """Refuse settings that are not known, unless their value changes nothing.

    Raises:
        BundleError: names each such setting.
    """
    foreign = [
        f"{key} = {value!r}"
        for key, value in tree.items()
        if key not in known and not (key in neutral and value in neutral[key])
    ]
    if foreign:
        raise BundleError(f"{what} asks for what raylens does not have: {', '.join(foreign)}")


def number(tree: Mapping[str, Any], key: str, default: int | None = None) -> int:
    """A whole number.

    Raises:
        BundleError: it is missing without a default, or no whole number.
    """
    value = tree.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise BundleError(f"{key} = {value!r}: expected a whole number")
    return value
