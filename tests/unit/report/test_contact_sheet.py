"""The contact sheet: where thumbnails and captions lie, and what is hard to draw."""

import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFont

from raylens.errors import ConfigError
from raylens.report.contact_sheet import _wrap, contact_sheet

MARGIN, GAP, EDGE = 22, 16, 160
RED, FRAME, PAPER = (255, 0, 0), (238, 238, 238), (255, 255, 255)
FONT = ImageFont.load_default(13)
GOOD = "a photo of a cat"


def picture(width: int, height: int, colour: tuple[int, int, int] = RED) -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(sink, "PNG")
    return sink.getvalue()


def pixels(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        return np.asarray(image.convert("RGB"))


def cell(sheet: NDArray[np.uint8], column: int) -> NDArray[np.uint8]:
    """The square of a thumbnail in the first row."""
    left = MARGIN + column * (EDGE + GAP)
    return sheet[MARGIN : MARGIN + EDGE, left : left + EDGE]


def extent(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Left, top, width and height of what is set."""
    down, across = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(across[0]), int(down[0]), int(across[-1] - across[0] + 1), int(down[-1] - down[0] + 1)


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((640, 480), (160, 120)),
        ((480, 640), (120, 160)),
        ((500, 500), (160, 160)),
        ((3000, 4), (160, 1)),
        ((2, 900), (1, 160)),
        ((28, 28), (140, 140)),  # five times
        ((100, 60), (100, 60)),
        ((1, 1), (160, 160)),
    ],
)
def test_a_thumbnail_keeps_its_aspect_in_the_middle_of_a_grey_square(
    size: tuple[int, int], shown: tuple[int, int]
) -> None:
    square = cell(pixels(contact_sheet([(picture(*size), "")])), 0)
    red = (square == RED).all(axis=2)
    left, top, width, height = extent(red)
    assert (width, height) == shown
    assert (left, top) == ((EDGE - width) // 2, (EDGE - height) // 2)
    assert red.sum() == width * height
    assert (square[~red] == FRAME).all()


def test_samples_lie_in_rows_from_left_to_right() -> None:
    colours = [(40 * number, 255 - 40 * number, 7) for number in range(6)]
    sheet = pixels(contact_sheet([(picture(50, 50, colour), "x") for colour in colours], columns=4))
    assert sheet.shape[1] == 2 * MARGIN + 4 * EDGE + 3 * GAP
    for number, colour in enumerate(colours):
        left, top, _, _ = extent((sheet == colour).all(axis=2))
        column, row = (left - MARGIN) // (EDGE + GAP), 0 if top < MARGIN + EDGE else 1
        assert (row, column) == divmod(number, 4)


def test_captions_stay_below_their_own_thumbnail() -> None:
    long = "word " * 200 + "x" * 500
    sheet = pixels(contact_sheet([(picture(9, 9), long), (picture(9, 9), "")]))
    ink = (sheet[MARGIN + EDGE :] != PAPER).any(axis=2)
    left, top, width, height = extent(ink)
    assert left >= MARGIN
    assert left + width <= MARGIN + EDGE
    assert top >= GAP // 2
    assert 2 * 17 < height <= 3 * 17


def test_margins_are_empty() -> None:
    sheet = pixels(contact_sheet([(picture(300, 300), GOOD)] * 5, columns=3))
    ink = (sheet != PAPER).any(axis=2)
    left, top, width, height = extent(ink)
    assert (left, top, width) == (MARGIN, MARGIN, sheet.shape[1] - 2 * MARGIN)
    assert top + height <= sheet.shape[0] - MARGIN


@pytest.mark.parametrize("data", [b"", b"not an image", picture(400, 400)[:120]])
def test_what_cannot_be_decoded_shows_why(data: bytes) -> None:
    sheet = pixels(contact_sheet([(picture(300, 300), GOOD), (data, GOOD)]))
    assert (cell(sheet, 0) == RED).all()
    bad = cell(sheet, 1)
    assert not (bad == FRAME).all()
    assert (bad[0] == bad[0, 0]).all()
    # Letters, within the box.
    inside = (bad[2:-2, 2:-2] != FRAME).any(axis=2)
    assert inside.sum() > 200
    assert not inside[:, -4:].any()


def test_without_samples_the_sheet_says_so() -> None:
    assert len(np.unique(pixels(contact_sheet([])))) > 1


def test_the_sheet_is_a_function_of_the_samples() -> None:
    samples = [(picture(30, 40), GOOD), (picture(40, 30), "一只猫 😀")]
    assert contact_sheet(samples) == contact_sheet(samples)
    assert contact_sheet(samples) != contact_sheet([samples[0], (samples[1][0], "a dog")])


@pytest.mark.parametrize(
    ("columns", "edge", "message"),
    [(0, 160, "columns = 0: a contact sheet needs at least 1"), (8, 10, "edge = 10: a caption needs at least 48")],
)
def test_impossible_layouts_are_refused(columns: int, edge: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        contact_sheet([], columns=columns, edge=edge)


@settings(max_examples=40)
@given(st.lists(st.text(st.characters(), max_size=60), min_size=1, max_size=5), st.integers(48, 130), st.integers(1, 3))
def test_any_captions_can_be_drawn(captions: list[str], edge: int, columns: int) -> None:
    sheet = pixels(contact_sheet([(picture(8, 8), caption) for caption in captions], edge=edge, columns=columns))
    assert sheet.shape[0] > edge * math.ceil(len(captions) / columns)


@given(
    st.text(st.sampled_from("ab mW…一😀é\n") | st.characters(), max_size=200), st.integers(40, 200), st.integers(1, 3)
)
def test_wrapped_lines_fit_and_lose_nothing_but_what_the_ellipsis_stands_for(text: str, width: int, most: int) -> None:
    lines = _wrap(text, FONT, width, most)
    assert len(lines) <= most
    assert all(FONT.getlength(line) <= width for line in lines)
    whole = "".join(_wrap(text, FONT, 100_000, 1)).replace(" ", "")
    shown = "".join(lines).replace(" ", "")
    if shown != whole:
        assert shown.endswith("…")
        assert whole.startswith(shown[:-1])


def test_a_surrogate_or_a_control_character_is_left_out() -> None:
    assert _wrap("bad \ud800 one\x00\x1b[31m\ttwo\u200d", FONT, 500, 3) == ["bad one[31m two"]
    assert _wrap(" \n\t ", FONT, 500, 3) == []
