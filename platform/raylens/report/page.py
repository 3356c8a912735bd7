"""The jinja environment of pages about runs, and the panels they are made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from raylens.report.charts import COLOURS, DASHES

__all__ = ["LegendLine", "Panel", "legend_of", "render_page"]


@dataclass(frozen=True)
class LegendLine:
    """What a line of a plot stands for."""

    name: str
    colour: int
    """Number of the page's variable."""
    dashes: str
    """As SVG has it; empty for a line without gaps."""


@dataclass(frozen=True)
class Panel:
    """A plot with words around it."""

    title: str
    figure: Markup | None
    """None where nothing was recorded."""
    says: str
    """In a sentence, for those who do not see it as well."""
    legend: Sequence[LegendLine] = ()

    @classmethod
    def of(cls, title: str, svg: str | None, says: str, names: Sequence[str] = ()) -> "Panel":
        """With a drawing of `raylens.report.charts`; ``names`` of its lines make a legend."""
        # Trusted markup: numbers drawn by matplotlib, no text of a user's in it.
        return cls(title, None if svg is None else Markup(svg), says if svg else "", legend_of(names))  # noqa: S704


def legend_of(names: Sequence[str]) -> list[LegendLine]:
    """Lines numbered as their names are, as `raylens.report.charts` draws them."""
    dashes = [" ".join(map(str, each)) for each in DASHES]
    return [
        LegendLine(name, number % COLOURS, dashes[number // COLOURS % len(DASHES)]) for number, name in enumerate(names)
    ]


def render_page(template: str, *packages: str, **values: object) -> str:
    """A template of this package, filled; strings are escaped unless they are `Markup`.

    Args:
        template: name of its file in a folder ``templates``.
        packages: others whose templates may be used, before those of this one.
        values: what is filled in.
    """
    return _environment(*packages).get_template(template).render(values)


@cache
def _environment(*packages: str) -> Environment:
    return Environment(
        # The style sheet of evaluations is the base of these pages' own.
        loader=ChoiceLoader([PackageLoader(name) for name in (*packages, "raylens.train", "raylens.evaluate")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
