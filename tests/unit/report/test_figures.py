"""Figures as elements of a page: where marks lie, what they say, and that nothing of a user's gets out of hand."""

import math
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markupsafe import Markup

from raylens.report.axis import Axis, metric_axis
from raylens.report.charts import Bar, Line, bar_chart, histogram_chart, line_chart, places_to_draw
from raylens.report.numbers import finite
from raylens.report.page import legend_of, records_panel
from raylens.report.plane import (
    Cell,
    ColourKey,
    Dot,
    Track,
    confusion_matrix,
    heat_map,
    parallel_coordinates,
    scatter_chart,
)
from raylens.report.theme import PALETTE, SERIES, theme_css
from tests.helpers.html_pages import Page, marks_of

EVIL = "</title><script>alert('x')</script>$\\frac font-family: x; \" & #0a0b10 \x1b 日本 \ud800"


def element(markup: Markup | None) -> ElementTree.Element:
    assert markup is not None
    Page(markup)
    return ElementTree.fromstring(markup)


def position(mark: ElementTree.Element) -> tuple[float, float]:
    use = next(mark.iter("use"))
    return float(use.attrib["x"]), float(use.attrib["y"])


# Theme


def test_figures_follow_the_theme_of_their_page_and_are_equal_for_equal_input() -> None:
    lines = [Line([1.0, 2.0, None], [3.0, None, 5.0])]
    svg = line_chart(lines, "optimiser step", level=4.0)
    assert svg == line_chart(lines, "optimiser step", level=4.0)
    assert svg is not None
    used = {name for name in PALETTE if f"var(--{name})" in svg}
    assert {"blue", "ink", "muted", "rule"} == used
    assert "#0a0b" not in svg
    assert "font-family" not in svg
    for name, (light, dark) in PALETTE.items():
        assert f"--{name}: {light};" in theme_css().splitlines()[0]
        assert f"--{name}: {dark};" in theme_css().splitlines()[1]


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [0, 1])
def test_texts_and_lines_can_be_told_from_the_paper(theme: int) -> None:
    """WCAG 2.2: a contrast of 4.5 for texts, 3 for the parts of figures."""
    paper = luminance(PALETTE["paper"][theme])
    for name in ("ink", "muted", "wrong", *SERIES):
        ends = sorted((paper, luminance(PALETTE[name][theme])))
        assert (ends[1] + 0.05) / (ends[0] + 0.05) >= (4.5 if name in ("ink", "muted", *SERIES[:2]) else 3), name


@given(st.text(max_size=30))
@example(EVIL)
@settings(max_examples=10, deadline=None)
def test_texts_of_a_user_stay_texts(text: str) -> None:
    axis = Axis(values=(text, 1))
    dots = [Dot(text, 0.5, text), Dot(1, 0.5, text)]
    for svg in (
        bar_chart([Bar(text, 0.5, 0.1, 0.9, "0.5")], "importance"),
        scatter_chart(dots, axis, Axis()),
        heat_map([Cell(0, 0, 1, text)], (2, 2), dots, (axis, Axis()), (text, text), ColourKey(text, 0, 1)),
        parallel_coordinates([(text, text, axis), ("b", "b", Axis())], [Track([0.5, 0.5], 3, text)]),
        confusion_matrix(np.eye(2, dtype=int), [text, "other"]),
    ):
        figure = element(svg)
        assert not {"script", "img"} & {each.tag for each in figure.iter()}
        assert "#0a0b" not in " ".join(each.get("style", "") for each in figure.iter())


# Curves


def test_no_point_is_no_figure() -> None:
    assert line_chart([Line([None], [1.0]), Line([1.0], [None]), Line([], [])], "step") is None
    assert histogram_chart([[0.0] * 40, []]) is None
    assert histogram_chart([[0.0] * 39 + [5.0], [1.0] * 40]) is not None


@given(st.lists(st.floats(-9, 9) | st.just(math.nan), min_size=1, max_size=200), st.integers(2, 50))
def test_no_spike_is_lost_among_many_points(values: list[float], most: int) -> None:
    y = np.array(values)
    places = places_to_draw(y, most)
    assert len(places) <= most
    assert list(places) == sorted(set(places))
    known = y[np.isfinite(y)]
    if len(known):
        assert (np.nanmin(y[places]), np.nanmax(y[places])) == (known.min(), known.max())
    else:
        assert len(places) > 0


def test_a_spike_is_drawn() -> None:
    svg = line_chart([Line(range(5_000), [*[1.0] * 2_500, 90.0, *[1.0] * 2_499])], "step")
    assert svg is not None
    assert ">80<" in svg  # a tick of the axis


@given(st.lists(st.none() | st.floats(allow_nan=True, allow_infinity=True) | st.integers(), max_size=5))
@settings(max_examples=25, deadline=None)
@example([1e99, -1e99])
@example([1e-320, 0.0])
@example([10**400])
def test_any_number_is_drawn_or_left_out(values: list[float | None]) -> None:
    known = [finite(value) for value in values]
    svg = line_chart([Line(range(len(known)), known)], "step")
    assert (svg is None) == all(value is None for value in known)


def test_points_alone_between_gaps_are_marked_and_so_are_ends() -> None:
    x, y = list(range(100)), [float(at) for at in range(100)]
    y[50:53] = [math.nan, 50.0, math.nan]
    lines = [Line(x, y, title=f"{role} {ended}", role=role, ended=ended)
             for role in ("equal", "other", "best") for ended in (False, True)]  # fmt: skip
    marks = marks_of(element(line_chart(lines, "step")))
    assert {title: len(list(mark.iter("use"))) for title, mark in marks.items()} == {
        "equal False": 1, "equal True": 1, "other False": 1, "other True": 2, "best False": 1, "best True": 2,
    }  # fmt: skip


def test_what_is_beyond_the_limits_is_drawn_along_the_edge() -> None:
    lines = [Line([0, 1], [value, value], title=str(value), role="other", ended=True) for value in (0, 1, 9)]
    marks = marks_of(element(line_chart(lines, "step", limits=(0.0, 1.0))))
    heights = {title: position(mark)[1] for title, mark in marks.items()}
    assert heights["9"] == heights["1"] < heights["0"]


def test_a_panel_of_records_says_where_its_lines_begin_and_end() -> None:
    records = [{"step": step, "a": step / 10, "b": None, "samples_seen": 128 * step} for step in range(1, 11)]
    panel = records_panel(records, "both", {"a": "first", "b": "second"}, note="; and more", samples=True)
    assert panel.says == "first from 0.1 to 1; second unknown; and more"
    assert [line.name for line in panel.legend] == ["first", "second"]
    assert ">samples seen<" in (panel.figure or "")
    assert records_panel(records, "none", {"c": ""}).figure is None


def test_legends_take_the_colours_again_with_dashes() -> None:
    lines = legend_of([str(number) for number in range(10)])
    assert (lines[1].colour, lines[9].colour) == ("orange", "orange")
    assert (lines[1].dashes, lines[9].dashes) == ("", "6 3")


# Axes


def test_values_of_an_axis_are_where_they_should_be_and_others_are_at_its_end() -> None:
    axis = Axis(2.0, 4.0)
    assert [axis.place(value) for value in (2, 3.5, 9, -1, None, "x", math.nan)] == [0, 0.75, 1, 0, None, None, None]
    assert Axis(1.0, 10.0, logarithmic=True).place(-1.0) is None
    assert [tick.text for tick in Axis(1, 3, whole=True).ticks()] == ["1", "2", "3"]


@pytest.mark.parametrize("lower", [True, False])
def test_one_far_value_does_not_squeeze_the_others(lower: bool) -> None:
    values = [1.0 + place / 10 for place in range(20)]
    far = 1e6 if lower else -1e6
    axis = metric_axis([*values, far], lower)
    assert [axis.low, axis.high] == pytest.approx([0.924, 2.976])
    # What is far better than the rest is what one is looking for.
    assert metric_axis([*values, far], not lower).place(far) == pytest.approx(0.037 if far < 0 else 0.963, abs=2e-3)


# Planes


def test_dots_lie_at_their_values_in_the_order_of_their_looks() -> None:
    dots = [
        Dot(10.0, 0.25, "first", "part"), Dot(100.0, 0.5, "second", "part"), Dot(1.0, 9.0, "far", "part", "triangle"),
        Dot(1000.0, 0.0, "best", "best"), Dot(5.0, None, "nowhere"),
    ]  # fmt: skip
    marks = marks_of(element(scatter_chart(dots, Axis(1, 1000, logarithmic=True), Axis())))
    assert set(marks) == {"first", "second", "far", "best"}
    (left, top), (right, bottom) = position(marks["far"]), position(marks["best"])
    assert position(marks["first"]) == pytest.approx(
        (left + (right - left) / 3, bottom - 0.25 * (bottom - top)), abs=0.05
    )
    assert position(marks["second"]) == pytest.approx(((left + 2 * right) / 3, (top + bottom) / 2), abs=0.05)
    assert "var(--orange)" in marks["best"].attrib["style"]
    assert "var(--blue)" in marks["first"].attrib["style"]


def test_cells_of_a_heat_map_have_the_colours_of_their_levels() -> None:
    cells = [Cell(0, 0, 0, "worst"), Cell(1, 2, 6, "best")]
    marks = marks_of(element(heat_map(cells, (2, 3), [], (Axis(), Axis()), ("x", "y"), ColourKey("loss", 2.0, 1.0))))
    assert "var(--level-0)" in marks["worst"].attrib["style"]
    assert "var(--level-6)" in marks["best"].attrib["style"]


def test_a_track_is_broken_where_it_has_no_place_and_a_point_alone_is_marked() -> None:
    axes = [(name, name, Axis()) for name in "abcd"]
    marks = marks_of(element(parallel_coordinates(axes, [Track([0.25, None, 0.5, 0.75], 0, "one")])))
    track = marks["one"]
    assert len(list(track.iter("use"))) == 1
    (line,) = track.findall("path")
    assert [line.attrib["d"].count(letter) for letter in "ML"] == [2, 1]


@pytest.mark.parametrize("classes", [2, 12, 45])
def test_the_confusion_matrix_has_a_cell_for_each_count(classes: int) -> None:
    confusion = np.diag(np.arange(classes))
    confusion[0, 1], confusion[1, 0] = 3, 1
    names = [f"class {number}" for number in range(classes)]
    figure = element(confusion_matrix(confusion, names))
    marks = marks_of(figure)
    assert "true: class 0; predicted: class 1; 3 of 3 images" in marks
    assert "true: class 1; predicted: class 0; 1 of 2 images" in marks
    cells = [mark for title, mark in marks.items() if title.startswith("true: ")]
    assert len(cells) == np.count_nonzero(confusion)
    half = marks["true: class 1; predicted: class 0; 1 of 2 images"].attrib["style"]
    assert f"fill-opacity: {math.sqrt(0.5):.4}" in half
    styles = " ".join(cell.attrib["style"] for cell in cells)
    assert "var(--wrong)" in styles
    assert "var(--blue)" in styles
