"""What commands print of files: tables of text, in which nothing is markup and nothing is cut off."""

from collections.abc import Iterator, Mapping

from rich.markup import escape
from rich.table import Table
from rich.text import Text

__all__ = ["Page", "add_row", "pairs_table"]

Page = Iterator[str | Table]
"""Tables, and lines that are printed as they are."""


def pairs_table(title: str, rows: Mapping[str, str]) -> Table:
    """A table of names and what they are."""
    table = Table(escape(title), "")
    for key, value in rows.items():
        add_row(table, key, value)
    return table


def add_row(table: Table, *cells: str) -> None:
    """What stands in files is text: brackets in it are no markup, and nothing of it is cut off."""
    table.add_row(*(Text(cell, overflow="fold") for cell in cells))
