"""How numbers are written on pages, in terminals and in tables."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@pytest.mark.parametrize("value", [None, math.nan, -math.inf, "5", True, 10**400, 1e101, [1]])
def test_what_is_no_number_that_can_be_drawn_is_a_dash(value: object) -> None:
    assert finite(value) is None
    assert (number_text(value), count_text(value)) == (ABSENT, ABSENT)


def test_measured_values_have_four_digits() -> None:
    values = (12.0, 1234.56, 0.00012345, -0.5, 5e17, 1.5e10)
    assert [number_text(value) for value in values] == ["12", "1,234.6", "0.0001234", "-0.5", "5e+17", "15,000,000,000"]


def test_counts_agree_with_their_nouns() -> None:
    assert count_text(1234) == "1,234"
    assert [count_text(count, "images") for count in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    assert [count_text(count, "classes") for count in (1, 1000)] == ["1 class", "1,000 classes"]


def test_shares_are_percentages_and_none_is_rounded_to_zero() -> None:
    shares = [percent_text(share) for share in (0.9312, 0.0, 0.0004, 0.0005, 1.0)]
    assert shares == ["93.1%", "0.0%", "<0.1%", "0.1%", "100.0%"]
    assert [percent_text(share, 0) for share in (0.4444, 0.001)] == ["44%", "<1%"]


def test_times_have_two_units() -> None:
    texts = [duration_text(seconds) for seconds in (1.25, 250, 12_000, 183_600)]
    assert texts == ["1.2 s", "4 min 10 s", "3 h 20 min", "2 d 3 h"]


def test_sizes_rates_and_prices_have_their_units() -> None:
    assert [bytes_text(size) for size in (1, 999, 999.6, 1500, 1.234e9)] == [
        "1 B", "999 B", "1 kB", "1.5 kB", "1.23 GB",
    ]  # fmt: skip
    assert (memory_text(79.63 * GIB), memory_text(3 * GIB, 2)) == ("79.6 GiB", "3.00 GiB")
    assert (rate_text(1234.5, "pairs"), money_text(1234.5)) == ("1,234 pairs/s", "1,234.50")


@given(st.floats(1, 1e14))
def test_short_numbers_are_short_and_within_their_digits(number: float) -> None:
    for digits in (3, 4):
        text = short_text(number, digits)
        scale = {"k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}.get(text[-1], 1.0)
        assert float(text.rstrip("kMBT")) * scale == pytest.approx(number, rel=0.5 * 10 ** (1 - digits))
        assert len(text) <= digits + 2


def test_values_of_a_configuration_are_those_of_json() -> None:
    assert [value_text(value) for value in (None, True, 1.5, [1, 2], "a b")] == ["null", "true", "1.5", "[1, 2]", "a b"]


def test_texts_are_cut_and_hold_no_controls() -> None:
    assert (shortened("abcdef", 6), shortened("abc def", 5)) == ("abcdef", "abc…")
    assert printable("a\x1b[2Jb\n") == "a�[2Jb�"
