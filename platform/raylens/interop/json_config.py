"""Configuration files of other programs, and the refusal of settings that raylens does not have."""

import json
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from raylens.errors import BundleError

__all__ = ["checked", "number", "read_json", "section"]


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file.

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
    """Return an object inside an object.

    Raises:
        BundleError: there is no such object.
    """
    inner = tree.get(key)
    if not isinstance(inner, Mapping):
        raise BundleError(f"{what} has no {key}: its keys are {', '.join(sorted(tree)[:8])}")
    return inner


def checked(tree: Mapping[str, Any], known: Set[str], neutral: Mapping[str, tuple[Any, ...]], what: str) -> None:
    """Refuse settings that are not known, unless their value changes nothing.

    Raises:
        BundleError: there are such settings; the message names each.
    """
    foreign = [
        f"{key} = {value!r}"
        for key, value in tree.items()
        if key not in known and not (key in neutral and value in neutral[key])
    ]
    if foreign:
        raise BundleError(f"{what} has settings that raylens does not have: {', '.join(foreign)}")


def number(tree: Mapping[str, Any], key: str, default: int | None = None) -> int:
    """Return the whole number of a key.

    Raises:
        BundleError: the key is missing and has no default, or its value is not a whole number.
    """
    value = tree.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise BundleError(f"{key} = {value!r}: expected a whole number")
    return value
