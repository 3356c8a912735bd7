"""``raylens cost``: the figures, as people and programs read them."""

import json

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from raylens.workloads.cost.cost import Cost
from raylens.workloads.cost.terms import Figure
from raylens.workloads.pages.tables import Page

__all__ = ["cost_page"]

UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")


def cost_page(title: str, found: Cost, as_json: bool) -> Page:
    """A table of figures with their origin, and what is assumed beneath it."""
    if as_json:
        yield json.dumps(found.as_dict(), ensure_ascii=False, allow_nan=False)
        return
    table = Table(escape(title), "", "how it came about")
    table.columns[1].justify = "right"
    for figure in found.figures:
        table.add_row(Text(figure.name), _shown(figure), Text(figure.how, overflow="fold"))
    yield table
    yield from found.notes


def _shown(figure: Figure) -> str:
    value, unit = figure.value, figure.unit
    if unit == "bytes":
        power = 0
        while value >= 1000 and power < len(UNITS) - 1:
            value, power = value / 1000, power + 1
        return f"{value:,.1f} {UNITS[power]}" if power else f"{value:,.0f} bytes"
    if unit in ("steps", "pairs", "nodes", "requests", "pairs/s"):
        return f"{value:,.0f} {unit}"
    return f"{value:,.2f}" if unit.startswith("money") else f"{value:,.2f} {unit}"
