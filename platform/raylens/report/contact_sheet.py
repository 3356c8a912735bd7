"""Samples beside each other in one picture: what a person looks at before training on them."""

import io
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont

from raylens.errors import ConfigError, InputError
from raylens.inputs import decode_image

__all__ = ["contact_sheet"]

PAPER, FRAME, INK, FAINT, BAD = "#ffffff", "#eeeeee", "#202124", "#5f6368", "#a50e0e"
LINES = 3
LEAST_EDGE = 48
ELLIPSIS = "…"
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class _Style:
    """Measures in pixels."""

    columns: int
    edge: int
    margin: int
    gap: int
    line: int
    font: Font

    @property
    def width(self) -> int:
        return 2 * self.margin + self.columns * self.edge + (self.columns - 1) * self.gap


def contact_sheet(samples: Sequence[tuple[bytes, str]], *, columns: int = 8, edge: int = 160) -> bytes:
    """A PNG of thumbnails, row by row, each with its caption below.

    Args:
        samples: image file and caption. An image that cannot be decoded shows why instead.
        columns: thumbnails in a row; fewer where there are fewer samples.
        edge: pixels of the square that a thumbnail fits into.

    Raises:
        ConfigError: no column, or squares too small to write under.
    """
    if columns < 1:
        raise ConfigError(f"columns = {columns}: a contact sheet needs at least 1")
    if edge < LEAST_EDGE:
        raise ConfigError(f"edge = {edge}: a caption needs at least {LEAST_EDGE} pixels")
    style = _style(max(1, min(columns, len(samples))), edge)
    rows = [_row(samples[first : first + columns], style) for first in range(0, len(samples), columns)]
    height = 2 * style.margin + sum(row.height for row in rows) + style.gap * max(0, len(rows) - 1)
    sheet = Image.new("RGB", (style.width, max(height, 2 * style.margin + style.line)), PAPER)
    top = style.margin
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height + style.gap
    if not rows:
        ImageDraw.Draw(sheet).text((style.margin, style.margin), "no samples", FAINT, style.font)
    sink = io.BytesIO()
    sheet.save(sink, "PNG", optimize=True)
    return sink.getvalue()


def _style(columns: int, edge: int) -> _Style:
    size = max(10, round(edge / 12.5))
    # matplotlib's font has Greek, Cyrillic and more; Pillow's own has Latin alone.
    font = ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf", size, layout_engine=ImageFont.Layout.BASIC)
    return _Style(columns, edge, margin=max(12, edge // 7), gap=max(8, edge // 10), line=round(size * 1.3), font=font)


def _row(samples: Sequence[tuple[bytes, str]], style: _Style) -> Image.Image:
    """Return a row of thumbnails, as high as its longest caption needs."""
    captions = [_wrap(caption, style.font, style.edge, LINES) for _, caption in samples]
    below = style.gap // 2 + style.line * max(map(len, captions))
    row = Image.new("RGB", (style.width, style.edge + below), PAPER)
    draw = ImageDraw.Draw(row)
    for place, ((data, _), lines) in enumerate(zip(samples, captions, strict=True)):
        left = style.margin + place * (style.edge + style.gap)
        row.paste(_cell(data, style), (left, 0))
        _write(draw, (left, style.edge + style.gap // 2), lines, INK, style)
    return row


def _cell(data: bytes, style: _Style) -> Image.Image:
    cell = Image.new("RGB", (style.edge, style.edge), FRAME)
    try:
        image = _fitted(decode_image(data, least=style.edge), style.edge)
    except InputError as error:
        draw, inset = ImageDraw.Draw(cell), style.gap // 2
        draw.rectangle((0, 0, style.edge - 1, style.edge - 1), outline=BAD)
        lines = (style.edge - 2 * inset) // style.line
        _write(draw, (inset, inset), _wrap(str(error), style.font, style.edge - 2 * inset, lines), BAD, style)
        return cell
    cell.paste(image, ((style.edge - image.width) // 2, (style.edge - image.height) // 2))
    return cell


def _fitted(image: Image.Image, edge: int) -> Image.Image:
    """Scaled down to fit; a small one is scaled up by a whole number, so that its pixels stay squares."""
    longer = max(image.size)
    if longer <= edge:
        factor = edge // longer
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    size = (max(1, round(image.width * edge / longer)), max(1, round(image.height * edge / longer)))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _write(draw: ImageDraw.ImageDraw, place: tuple[int, int], lines: Sequence[str], ink: str, style: _Style) -> None:
    left, top = place
    for number, line in enumerate(lines):
        draw.text((left, top + number * style.line), line, ink, style.font)


def _wrap(text: str, font: Font, width: int, most: int) -> list[str]:
    """Lines no wider than ``width`` pixels, ``most`` of them at most; an ellipsis ends what is cut."""
    # No line holds a thousand letters; a caption may hold millions.
    words = " ".join(text.split())[: 1000 * most]
    lines: list[str] = []
    for word in _pieces(_drawable(words).split(), font, width):
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        elif len(lines) < most:
            lines.append(word)
        else:
            return [*lines[:-1], _cut(lines[-1], font, width)]
    return lines


def _pieces(words: Sequence[str], font: Font, width: int) -> Iterator[str]:
    """Words, those wider than a line in pieces: Chinese has no spaces, and a URL few."""
    for word in words:
        rest = word
        while font.getlength(rest) > width:
            fitting = 1
            while font.getlength(rest[: fitting + 1]) <= width:
                fitting += 1
            yield rest[:fitting]
            rest = rest[fitting:]
        if rest:
            yield rest


def _cut(line: str, font: Font, width: int) -> str:
    while line and font.getlength(line + ELLIPSIS) > width:
        line = line[:-1]
    return line.rstrip() + ELLIPSIS


def _drawable(text: str) -> str:
    """Composed letters, and nothing that has no shape of its own: half surrogates, controls, joiners, selectors."""
    composed = unicodedata.normalize("NFC", text)
    return "".join(
        " " if letter.isspace() else letter
        for letter in composed
        if letter.isspace() or (unicodedata.category(letter)[0] != "C" and not "\ufe00" <= letter <= "\ufe0f")
    )
