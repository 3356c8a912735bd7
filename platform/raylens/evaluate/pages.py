"""The jinja environment of the report's templates: everything is escaped, nothing undefined passes."""

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

__all__ = ["render"]


def render(template: str, **values: object) -> Markup:
    """A template of this package, filled; strings are escaped unless they are `Markup`."""
    return Markup(_environment().get_template(template).render(values))  # noqa: S704, the result of autoescaping


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("raylens.evaluate"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = _percent
    environment.filters["count"] = _count
    return environment


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f}%"


def _count(number: int, noun: str = "") -> str:
    """``1,234 images``; the noun in the singular loses its s."""
    return f"{number:,} {noun if number != 1 else noun.removesuffix('s')}".strip()
