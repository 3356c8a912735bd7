"""Which columns of a table hold images and captions: the names that are given, or the usual ones."""

from collections.abc import Mapping, Sequence
from typing import Literal

from raylens.errors import ManifestError

__all__ = ["CAPTION_NAMES", "find_column"]

CAPTION_NAMES = ("caption", "captions", "text", "txt", "title", "sentences", "description", "alt_text", "alt")
SHOWN = 20
"""Columns that a message lists."""
LONGEST_TYPE = 60
"""Characters of a column's type in a message."""


def find_column(
    role: Literal["image", "caption"],
    given: str | None,
    usual: Sequence[str],
    columns: Mapping[str, bool],
    where: str,
    types: Mapping[str, object] | None = None,
) -> str:
    """The column for a role: ``given`` to the letter, else the first usual name, in upper or lower case.

    Args:
        role: what the column holds; the setting is named after it.
        given: the setting, if it is set.
        usual: names in lower case, the likeliest first.
        columns: all columns of the table, and whether what they hold can serve.
        where: the table, for messages.
        types: of columns, for messages; what has none here is not told.

    Raises:
        ManifestError: there is none, or the given one cannot serve; lists the columns.
    """
    setting = f"{role}_column"
    if given is not None and columns.get(given):
        return given
    if given in columns:
        raise ManifestError(
            f"{where}: {setting} = {given!r} does not hold {role}s; {_listed(columns, role, types or {})}"
        )
    if given is not None:
        raise ManifestError(
            f"{where}: {setting} = {given!r} is not among its columns; {_listed(columns, role, types or {})}"
        )
    fitting = {name.strip().lower(): name for name in reversed(list(columns)) if columns[name]}
    for name in usual:
        if name in fitting:
            return fitting[name]
    raise ManifestError(
        f"{where}: no column with a usual name for {role}s; set {setting}: {_listed(columns, role, types or {})}"
    )


def _listed(columns: Mapping[str, bool], role: str, types: Mapping[str, object]) -> str:
    shown = ", ".join(
        name if able else f"{name} ({f'{_short(types[name])}, ' if name in types else ''}no {role}s)"
        for name, able in list(columns.items())[:SHOWN]
    )
    return f"its columns are {shown}{', ...' if len(columns) > SHOWN else ''}" if columns else "it has no columns"


def _short(kind: object) -> str:
    text = str(kind)
    return text if len(text) <= LONGEST_TYPE else f"{text[:LONGEST_TYPE]}..."
