"""Colours, fonts and themes of pages, and figures of matplotlib that follow them.

matplotlib wants colours, a page wants variables that change with its theme. So each variable has a colour that stands
in for it (`paint`), and where a figure becomes an element of a page (`Canvas.markup`) its style attributes, and nothing
else, get the variables back. Texts stay texts in the fonts of the page, and marks get the titles that browsers show
when the pointer rests on them.
"""

import io
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from markupsafe import Markup

from raylens.report.numbers import printable

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

__all__ = ["LEVELS", "SERIES", "Canvas", "canvas", "paint", "theme_css"]

SERIES = ("blue", "orange", "green", "purple", "rose", "olive", "slate", "teal")
"""Colours of lines, in their order."""
LEVELS = 7
"""Colours from ``level-0``, the worst, to the best."""
PALETTE: Mapping[str, tuple[str, str]] = {
    "paper": ("#ffffff", "#14181d"),
    "well": ("#f2f4f6", "#1d232a"),
    "ink": ("#17202a", "#e8ecf0"),
    "muted": ("#56616d", "#a3aeb9"),
    "rule": ("#dde2e7", "#323a43"),
    "blue": ("#00639c", "#63b8ee"),
    "orange": ("#b34a00", "#f5a04a"),
    "green": ("#00785a", "#45c9a0"),
    "purple": ("#8a3ab9", "#c99af0"),
    "rose": ("#a8325a", "#f08bab"),
    "olive": ("#6b6300", "#d3c84a"),
    "slate": ("#3c4a57", "#a9b7c4"),
    "teal": ("#0a7a8c", "#5fd0e0"),
    "wrong": ("#c85200", "#f5a04a"),
    "on-fill": ("#ffffff", "#10141a"),
    "level-0": ("#ccd5dc", "#34404a"),
    "level-1": ("#b0c8da", "#35536c"),
    "level-2": ("#8db5d4", "#3d6f95"),
    "level-3": ("#619dc9", "#4a8cbd"),
    "level-4": ("#2f82b6", "#63b0e4"),
    "level-5": ("#00639c", "#93cff5"),
    "level-6": ("#003a5e", "#d3ecff"),
}
"""Colours of each variable, on light and on dark pages."""

STANDING_IN = {f"#0a0b{number:02x}": f"var(--{name})" for number, name in enumerate(PALETTE)}
HREF = "{http://www.w3.org/1999/xlink}href"
SMALLEST = 0.72
"""Share of its own width down to which a figure shrinks with the page; then it scrolls, for texts must be readable."""


def theme_css() -> str:
    """Return the style sheet that gives the variables their colours, by the reader's preference; paper is light."""
    light, dark = (" ".join(f"--{name}: {both[at]};" for name, both in PALETTE.items()) for at in (0, 1))
    return (
        f":root {{ color-scheme: light dark; {light} }}\n"
        f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"
    )


def paint(name: str) -> str:
    """Return the colour that stands in for a variable of the page within a figure."""
    return f"#0a0b{list(PALETTE).index(name):02x}"


@dataclass
class Canvas:
    """A figure that is being drawn."""

    figure: "Figure"
    width: float
    titles: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def title(self, artist: "Artist", *texts: str) -> None:
        """Say what an artist shows: one text for all of it, or one for each of its marks in their order."""
        gid = f"titled-{len(self.titles)}"
        artist.set_gid(gid)
        self.titles[gid] = texts

    def markup(self) -> Markup:
        """Return the figure as an ``<svg>`` element; what it shows must be said in words beside it."""
        sink = io.BytesIO()
        with warnings.catch_warnings():
            # The browser draws texts, and has letters that the font which measures them has not.
            warnings.filterwarnings("ignore", r"Glyph \d+ ", UserWarning)
            self.figure.savefig(sink, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
        root = ElementTree.fromstring(sink.getvalue())  # noqa: S314, matplotlib wrote it
        for element in list(root.iter()):
            element.tag = element.tag.rpartition("}")[2]
            self._adapt(element)
        root.attrib = {
            "viewBox": root.attrib["viewBox"],
            "width": f"{self.width:.0f}",
            "style": f"min-width: {SMALLEST * self.width:.0f}px",
            "aria-hidden": "true",
        }
        # Texts are escaped by the serialisation.
        return Markup(ElementTree.tostring(root, encoding="unicode"))  # noqa: S704

    def _adapt(self, element: ElementTree.Element) -> None:
        for child in list(element):
            if child.tag.endswith(("}metadata", "}style")):  # a style would hold for the whole page
                element.remove(child)
        attributes = element.attrib
        if element.tag == "g" and (titles := self.titles.get(attributes.pop("id", ""))):
            _entitle(element, titles)
        if HREF in attributes:
            attributes["href"] = attributes.pop(HREF)
        if "style" in attributes:
            attributes["style"] = _themed(attributes["style"])
        for name in {"d", "x", "y"} & attributes.keys():
            attributes[name] = " ".join(map(_rounded, attributes[name].split()))


@contextmanager
def canvas(width: float, height: float, *, standalone: bool = False) -> Iterator[Canvas]:
    """Yield an empty figure in the style of the pages.

    Args:
        width: in units of which 12 are the height of a text.
        height: in the same units.
        standalone: for a picture file, which has the colours of light pages in place of variables.
    """
    import matplotlib as mpl
    from cycler import cycler
    from matplotlib.figure import Figure

    colours = {name: both[0] if standalone else paint(name) for name, both in PALETTE.items()}
    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "raylens",
        "text.parse_math": False,  # a user's text may hold dollars
        "font.size": 12,
        "xtick.labelsize": 11.5,
        "ytick.labelsize": 11.5,
        "axes.formatter.useoffset": False,
        "axes.prop_cycle": cycler(color=[colours[name] for name in SERIES]),
        "axes.labelcolor": colours["ink"],
        "axes.edgecolor": colours["muted"],
        "axes.axisbelow": True,
        "axes.facecolor": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.facecolor": colours["paper"],
        "legend.edgecolor": colours["rule"],
        "figure.facecolor": colours["paper"] if standalone else "none",
        "xtick.color": colours["muted"],
        "ytick.color": colours["muted"],
        "text.color": colours["ink"],
        "grid.color": colours["rule"],
    }
    with mpl.rc_context(settings):
        yield Canvas(Figure(figsize=(width / 72, height / 72), layout="constrained"), width)


def _entitle(group: ElementTree.Element, titles: tuple[str, ...]) -> None:
    marks = [group]
    if len(titles) > 1:
        marks = [each for each in group.iter() if each.tag.endswith("use")] or group.findall("{*}path")
    for mark, text in zip(marks, titles, strict=True):
        title = ElementTree.Element("title")
        title.text = printable(text)
        mark.insert(0, title)


def _themed(style: str) -> str:
    """Replace colours by variables; the family of a font is the page's."""
    pairs = [pair.split(": ", 1) for pair in style.split("; ")]
    return "; ".join(f"{key}: {STANDING_IN.get(value, value)}" for key, value in pairs if key != "font-family")


def _rounded(token: str) -> str:
    """A hundredth of a unit is less than a screen can show."""
    return token if token.isalpha() else f"{float(token):.2f}".rstrip("0").rstrip(".")
