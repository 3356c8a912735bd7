"""The shell of pages: their templates, and the panels of figures that they are made of.

A page is one HTML file that opens anywhere, asks nothing of the network and runs no scripts. Everything in it is
escaped that is not `Markup`, and nothing undefined passes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from raylens.report import numbers
from raylens.report.charts import DASHES, Line, line_chart
from raylens.report.numbers import finite, number_text
from raylens.report.theme import SERIES, theme_css

__all__ = ["LegendLine", "Panel", "legend_of", "records_panel", "render_page"]

FILTERS = {"percent": numbers.percent_text, "count": numbers.count_text}


@dataclass(frozen=True)
class LegendLine:
    """What a line of a figure stands for."""

    name: str
    colour: str
    """Name of the page's variable."""
    dashes: str
    """The lengths of ink and gap as SVG writes them; empty for a line without gaps."""


@dataclass(frozen=True)
class Panel:
    """A figure with words around it."""

    title: str
    figure: Markup | None
    """None where nothing was recorded."""
    says: str = ""
    """What it shows in a sentence, for those who do not see it as well."""
    legend: Sequence[LegendLine] = ()


def legend_of(names: Sequence[str]) -> list[LegendLine]:
    """Return the legend of lines that are numbered as their names are; see `raylens.report.charts.line_chart`."""
    dashes = [" ".join(map(str, each)) for each in DASHES]
    return [
        LegendLine(name, SERIES[number % len(SERIES)], dashes[number // len(SERIES) % len(DASHES)])
        for number, name in enumerate(names)
    ]


def records_panel(
    records: Sequence[Mapping[str, Any]],
    title: str,
    keys: Mapping[str, str],
    *,
    level: float | None = None,
    note: str = "",
    samples: bool = False,
) -> Panel:
    """Draw keys of a run's records over its steps.

    Args:
        records: in the order of their steps.
        title: what the panel is called.
        keys: by key, the name of its line; what is not a number in a record is a gap.
        level: draws a dashed line across.
        note: said after where each line begins and ends.
        samples: whether the samples seen are named above the figure.
    """
    steps = [finite(record["step"]) for record in records]
    columns = {key: [finite(record.get(key)) for record in records] for key in keys}
    lines = [Line(steps, column, number) for number, column in enumerate(columns.values())]
    above = ("samples seen", [finite(record.get("samples_seen")) for record in records]) if samples else None
    figure = line_chart(lines, "optimiser step", level=level, above=above)
    names = list(keys.values()) if len(keys) > 1 else [""] * len(keys)
    says = "; ".join(_from_to(column, name) for column, name in zip(columns.values(), names, strict=True))
    legend = legend_of(names) if len(keys) > 1 else ()
    return Panel(title, figure, f"{says}{note}" if figure else "", legend if figure else ())


def render_page(template: str, package: str, **values: object) -> str:
    """Fill a template; equal values give equal bytes.

    Args:
        template: name of its file in the package's folder ``templates``.
        package: whose template it is.
        values: what is filled in; strings are escaped unless they are `Markup`.
    """
    return _environment(package).get_template(template).render(values)


@cache
def _environment(package: str) -> Environment:
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(name) for name in (package, "raylens.report")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= FILTERS
    environment.globals["theme"] = Markup(theme_css())  # noqa: S704, colours of ours
    return environment


def _from_to(column: Sequence[float | None], name: str) -> str:
    known = [value for value in column if value is not None]
    return f"{name} from {number_text(known[0])} to {number_text(known[-1])}".strip() if known else f"{name} unknown"
