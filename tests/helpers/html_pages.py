"""Pages as a browser reads them, and checks that hold for each: it loads nothing and closes what it opens."""

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

__all__ = ["Page", "check_page", "figures_of", "marks_of"]

VOID = ("meta", "wbr", "br", "img")
FOREIGN = {"script", "link", "iframe", "object", "embed", "base", "form"}


class Page(HTMLParser):
    """Elements and words of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words = ""
        self.feed(page)
        self.close()
        assert self.open == []

    @property
    def tags(self) -> list[str]:
        return [tag for tag, _ in self.elements]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        for name, value in self.elements[-1][1].items():
            assert not name.startswith(("on", "action", "data")), (tag, name)
            assert name not in ("href", "xlink:href") or value.startswith("#"), (tag, value)
            assert name != "src" or value.startswith("data:image/"), (tag, value)
            assert not re.search(r"url\((?!#)", value) or name in ("aria-label", "alt"), (tag, name, value)
            assert name not in ("d", "x", "y") or not re.search("nan|inf", value), (tag, name, value)

    def handle_data(self, data: str) -> None:
        self.words += data


def check_page(text: str) -> Page:
    page = Page(text)
    assert not FOREIGN & set(page.tags)
    style = text[text.index("<style>") : text.index("</style>")]
    assert not re.search(r"@import|url\(|http|#0a0b", style)
    assert "default-src 'none'" in text
    assert page.tags.count("h1") == 1
    for _, attributes in page.elements:
        assert "#0a0b" not in attributes.get("style", ""), "a colour of the figures stands in for a variable"
        assert attributes.get("role") != "img" or len(attributes["aria-label"]) > 5
    return page


def figures_of(page: str) -> list[ElementTree.Element]:
    """The figures, without the small drawings of legends."""
    drawn = re.findall(r'<svg viewBox="[^"]*" width.*?</svg>', page, re.DOTALL)
    return [ElementTree.fromstring(svg) for svg in drawn]


def marks_of(figure: ElementTree.Element) -> dict[str, ElementTree.Element]:
    """What has a title in a figure, by its title; a group that is one mark is that mark."""
    parents = {child: parent for parent in figure.iter() for child in parent}
    titled = {title.text or "": parents[title] for title in figure.iter("title")}
    uses = {title: list(mark.iter("use")) for title, mark in titled.items()}
    alone = {title for title, mark in titled.items() if len(uses[title]) == 1 and mark.find("path") is None}
    return {title: uses[title][0] if title in alone else mark for title, mark in titled.items()}
