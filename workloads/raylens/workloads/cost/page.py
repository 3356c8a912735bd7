"""The page of ``raylens cost``: figures as people and programs read them."""

import json

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from raylens.report import bytes_text, count_text, money_text, rate_text
from raylens.workloads.cost.cost import Cost
from raylens.workloads.cost.terms import Figure
from raylens.workloads.pages.tables import Page

__all__ = ["cost_page"]


def cost_page(title: str, cost: Cost, as_json: bool) -> Page:
    """Yield a table of figures with their origin, and what is assumed beneath it."""
    if as_json:
        yield json.dumps(cost.as_dict(), ensure_ascii=False, allow_nan=False)
        return
    table = Table(escape(title), "", "how it is computed")
    table.columns[1].justify = "right"
    for figure in cost.figures:
        table.add_row(Text(figure.name), _shown(figure), Text(figure.how, overflow="fold"))
    yield table
    yield from cost.notes


def _shown(figure: Figure) -> str:
    value, unit = figure.value, figure.unit
    if unit == "bytes":
        return bytes_text(value)
    if unit == "pairs/s":
        return rate_text(value, "pairs")
    if unit in ("steps", "pairs", "nodes", "requests"):
        return count_text(value, unit)
    return money_text(value) if unit.startswith("money") else f"{value:,.2f} {unit}"
