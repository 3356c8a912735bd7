"""Tables of text from files, in which nothing is markup and nothing is cut off."""

from collections.abc import Iterator, Mapping

from rich.markup import escape
from rich.table import Table
from rich.text import Text

__all__ = ["Page", "add_row", "pairs_table"]

Page = Iterator[str | Table]
"""Tables, and lines that are printed as they are."""


def pairs_table(title: str, rows: Mapping[str, str]) -> Table:
    """Return a table of names and their values."""
    table = Table(escape(title), "")
    for key, value in rows.items():
        add_row(table, key, value)
    return table


def add_row(table: Table, *cells: str) -> None:
    """Add a row of plain text: brackets are not markup, and long text is wrapped, not cut off."""
    table.add_row(*(Text(cell, overflow="fold") for cell in cells))
