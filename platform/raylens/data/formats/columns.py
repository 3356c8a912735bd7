"""The columns of a table that hold images and captions: those of the configuration, or those with a usual name."""

from collections.abc import Mapping, Sequence
from typing import Literal

from raylens.errors import ManifestError

__all__ = ["CAPTION_NAMES", "find_column"]

CAPTION_NAMES = ("caption", "captions", "text", "txt", "title", "sentences", "description", "alt_text", "alt")
SHOWN = 20
"""Most columns that a message lists."""
LONGEST_TYPE = 60
"""Most characters of a column's type in a message."""


def find_column(
    role: Literal["image", "caption"],
    configured: str | None,
    usual: Sequence[str],
    columns: Mapping[str, bool],
    where: str,
    types: Mapping[str, object] | None = None,
) -> str:
    """Return the column for a role: ``configured`` exactly, else the first usual name, ignoring case.

    Args:
        role: what the column holds; the setting is named after it.
        configured: the value of the setting, or None.
        usual: names in lower case, the likeliest first.
        columns: all columns of the table, and whether their type fits the role.
        where: the file, for messages.
        types: types of columns for messages, where known.

    Raises:
        ManifestError: there is no such column, or its type does not fit; the message lists the columns.
    """
    setting = f"{role}_column"
    listed = _listed(columns, role, types or {})
    if configured is not None and columns.get(configured):
        return configured
    if configured is not None:
        problem = f"does not hold {role}s" if configured in columns else "is not among its columns"
        raise ManifestError(f"{where}: {setting} = {configured!r} {problem}: set {setting} to another; {listed}")
    fitting = {name.strip().lower(): name for name in reversed(list(columns)) if columns[name]}
    for name in usual:
        if name in fitting:
            return fitting[name]
    raise ManifestError(f"{where}: no column has a usual name for {role}s: set {setting}; {listed}")


def _listed(columns: Mapping[str, bool], role: str, types: Mapping[str, object]) -> str:
    shown = ", ".join(
        name if able else f"{name} ({f'{_short(types[name])}, ' if name in types else ''}no {role}s)"
        for name, able in list(columns.items())[:SHOWN]
    )
    return f"its columns are {shown}{', ...' if len(columns) > SHOWN else ''}" if columns else "it has no columns"


def _short(kind: object) -> str:
    text = str(kind)
    return text if len(text) <= LONGEST_TYPE else f"{text[:LONGEST_TYPE]}..."
