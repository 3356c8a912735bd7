"""Number formats, figures and the shell of pages: what every report of raylens is made of.

Evaluations, training runs, sweeps and commands decide what is on their pages; this package decides how a number
(`numbers`), a colour (`theme`), a figure (`charts`, `plane`, on `axis`) and a page (`page`) look. Its modules are
imported one by one, for a command that prints a number needs neither templates nor matplotlib.
"""

from typing import TYPE_CHECKING

from raylens.lazy import lazy_face

if TYPE_CHECKING:
    from raylens.report.axis import Axis, metric_axis
    from raylens.report.charts import WIDE, Bar, Line, bar_chart, histogram_chart, line_chart
    from raylens.report.numbers import (
        ABSENT,
        GIB,
        bytes_text,
        count_text,
        duration_text,
        finite,
        memory_text,
        money_text,
        number_text,
        percent_text,
        printable,
        rate_text,
        short_text,
        shortened,
        value_text,
    )
    from raylens.report.page import Panel, legend_of, records_panel, render_page
    from raylens.report.plane import (
        MOST_CLASSES,
        Cell,
        ColourKey,
        Dot,
        Kind,
        Shape,
        Track,
        confusion_matrix,
        heat_map,
        parallel_coordinates,
        scatter_chart,
    )
    from raylens.report.theme import LEVELS, canvas

__all__ = [
    "ABSENT",
    "GIB",
    "LEVELS",
    "MOST_CLASSES",
    "WIDE",
    "Axis",
    "Bar",
    "Cell",
    "ColourKey",
    "Dot",
    "Kind",
    "Line",
    "Panel",
    "Shape",
    "Track",
    "bar_chart",
    "bytes_text",
    "canvas",
    "confusion_matrix",
    "count_text",
    "duration_text",
    "finite",
    "heat_map",
    "histogram_chart",
    "legend_of",
    "line_chart",
    "memory_text",
    "metric_axis",
    "money_text",
    "number_text",
    "parallel_coordinates",
    "percent_text",
    "printable",
    "rate_text",
    "records_panel",
    "render_page",
    "scatter_chart",
    "short_text",
    "shortened",
    "value_text",
]

__getattr__ = lazy_face(
    __name__,
    {
        "ABSENT": "numbers",
        "GIB": "numbers",
        "LEVELS": "theme",
        "MOST_CLASSES": "plane",
        "WIDE": "charts",
        "Axis": "axis",
        "Bar": "charts",
        "Cell": "plane",
        "ColourKey": "plane",
        "Dot": "plane",
        "Kind": "plane",
        "Line": "charts",
        "Panel": "page",
        "Shape": "plane",
        "Track": "plane",
        "bar_chart": "charts",
        "bytes_text": "numbers",
        "canvas": "theme",
        "confusion_matrix": "plane",
        "count_text": "numbers",
        "duration_text": "numbers",
        "finite": "numbers",
        "heat_map": "plane",
        "histogram_chart": "charts",
        "legend_of": "page",
        "line_chart": "charts",
        "memory_text": "numbers",
        "metric_axis": "axis",
        "money_text": "numbers",
        "number_text": "numbers",
        "parallel_coordinates": "plane",
        "percent_text": "numbers",
        "printable": "numbers",
        "rate_text": "numbers",
        "records_panel": "page",
        "render_page": "page",
        "scatter_chart": "plane",
        "short_text": "numbers",
        "shortened": "numbers",
        "value_text": "numbers",
    },
)
