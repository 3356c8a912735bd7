"""The page of statistics: what it says, and that it fits a terminal and a file."""

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from raylens.data.manifest import SCHEMA
from raylens.data.stats.collect import Stats, collect
from raylens.data.stats.histogram import Bar, Summary
from raylens.data.stats.sketches import Duplicates
from raylens.workloads.pages.stats import WIDTH, stats_page

NAMES = (
    "shard", "key", "width", "height", "image_length", "caption_count", "caption_length", "image_sha256",
    "caption_hash", "reason",
)  # fmt: skip


def row(number: int, **values: object) -> dict[str, Any]:
    digest = hashlib.sha256(str(number).encode()).digest()
    plain = {
        "shard": number % 3, "key": str(number), "width": 640, "height": 480, "image_length": 20_000 + number,
        "caption_count": 1, "caption_length": 30, "image_sha256": digest, "caption_hash": digest[:8], "reason": None,
    }  # fmt: skip
    return plain | values


def stats_of(rows: list[dict[str, Any]]) -> Stats:
    return collect([pa.Table.from_pylist(rows, schema=pa.schema([SCHEMA.field(name) for name in NAMES]))])


def line_of(page: str, start: str) -> str:
    return next(line for line in page.splitlines() if line.startswith(start))


def check_fits(page: str) -> None:
    lines = page.split("\n")
    assert lines.pop() == ""
    assert all(cell_len(line) <= WIDTH for line in lines)
    assert all(line.isprintable() and line == line.rstrip() for line in lines)


def test_the_page_says_what_was_counted() -> None:
    rows = [row(number, width=640 if number % 4 else 100, image_sha256=bytes(32)) for number in range(1200)]
    rows += [{**dict.fromkeys(NAMES), "shard": 0, "reason": "not an image"}] * 400
    page = stats_page(stats_of(rows), "s3://bucket/set")
    check_fits(page)
    assert page.splitlines()[:2] == ["s3://bucket/set", "───────────────"]
    assert line_of(page, "samples").split(maxsplit=1)[1] == "1,200 in 3 shards, 400 a shard"
    assert line_of(page, "left out").split(maxsplit=2)[2] == "400 (25.0%)"
    assert "400  not an image" in page
    assert line_of(page, "image files").split(maxsplit=2)[2] == "24.7 MB"
    assert line_of(page, "small images").split(maxsplit=2)[2] == "300 (25.0%) shorter edge under 224 pixels"
    assert line_of(page, "repeated images").split(maxsplit=2)[2] == "99.9%, one 1,200 times"
    assert line_of(page, "repeated captions").split(maxsplit=2)[2] == "0.0%"
    assert line_of(page, "width ").split() == ["width", *["100"] * 4, *["640"] * 5, "505"]
    assert line_of(page, "captions a sample").split()[3:] == ["1"] * 9 + ["1.00"]


def test_columns_of_numbers_are_aligned() -> None:
    draw = np.random.default_rng(1)
    rows = [
        row(n, width=int(draw.lognormal(6, 2)) + 1, image_length=int(draw.lognormal(12, 4)) + 1) for n in range(500)
    ]
    lines = stats_page(stats_of(rows), "set").splitlines()
    header = next(number for number, line in enumerate(lines) if line.split()[:1] == ["min"])
    table = lines[header : header + 8]
    assert {len(line) for line in table} == {98}
    assert all(line[place] == " " for line in table for place in range(18, 98, 8))


def test_bars_are_as_long_as_their_shares() -> None:
    rows = [row(number, caption_count=1 if number < 60 else 2 if number < 90 else 4) for number in range(100)]
    lines = stats_page(stats_of(rows), "set").splitlines()
    first = 1 + next(number for number, line in enumerate(lines) if line[:48].rstrip() == "captions a sample")
    bars = [line[:48].split() for line in lines[first : first + 4]]
    assert [bar[0] for bar in bars] == ["1", "2", "3", "4"]
    assert [bar[-1] for bar in bars if "%" in bar[-1]] == ["60.0%", "30.0%", "10.0%"]
    assert bars[2] == ["3", "-"]
    lengths = [len(bar[1].rstrip("▏▎▍▌▋▊▉")) for bar in (bars[0], bars[1], bars[3])]
    assert lengths == [36, 18, 6]


def test_what_is_estimated_is_called_so() -> None:
    rows = stats_of([row(number) for number in range(10)])
    estimate = Duplicates(0.1234, 0.0008, 1 / 256, 1_562_000, 1_370_000, 71)
    page = stats_page(replace(rows, samples=400_000_000, duplicate_images=estimate, sizes_short=6_000), "set")
    check_fits(page)
    said = "about 12.34 ± 0.16%, estimated from 1,562,000 of 400,000,000 samples, one 71 times"
    assert line_of(page, "repeated images").endswith(said)
    assert "most frequent sizes (counts at most 6,000 short)" in page


def test_without_samples_only_counts_are_shown() -> None:
    assert stats_page(collect([]), "empty").splitlines()[2:] == [
        "samples           0 in 0 shards",
        "left out          0",
    ]
    page = stats_page(stats_of([{**dict.fromkeys(NAMES), "shard": 1, "reason": "no image"}]), "bad")
    assert "1 (100.0%)" in page
    assert "median" not in page


def test_many_long_reasons_are_cut() -> None:
    rows = stats_of([row(0)])
    reasons = {f"reason {number} " + "很" * 80: 90 - number for number in range(20)}
    page = stats_page(replace(rows, rejected=sum(reasons.values()), reasons=reasons), "set")
    check_fits(page)
    assert "reason 11 " in page
    assert "reason 12 " not in page
    assert "and 8 other reasons" in page


def test_control_sequences_do_not_reach_the_terminal() -> None:
    page = stats_page(replace(stats_of([row(0)]), rejected=1, reasons={"\x1b[2Jgone\n": 1}), "a\x1b]0;b\x07\u202ec")
    check_fits(page)
    assert page.startswith("a�]0;b��c\n")


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (9_994, "9.99 kB"), (9_996, "10 kB"), (99_960, "100 kB"),
     (999_499, "999 kB"), (999_500, "1 MB"), (4 * 10**9, "4 GB"), (2**62, "4.61 EB")],
)  # fmt: skip
def test_bytes_have_three_digits(value: int, shown: str) -> None:
    page = stats_page(stats_of([row(0, image_length=value)]), "set")
    assert line_of(page, "image files").split(maxsplit=2)[2] == shown


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1), st.integers(0, 2**60)), min_size=1, max_size=20
    ),
    st.text(max_size=150),
)
def test_any_numbers_and_any_title_fit(values: list[tuple[int, int, int]], title: str) -> None:
    rows = [
        row(number, width=width, height=height, image_length=length, caption_length=width, caption_count=height)
        for number, (width, height, length) in enumerate(values)
    ]
    check_fits(stats_page(stats_of(rows), title))


def test_a_bar_of_a_thousandth_is_seen() -> None:
    summary = Summary(0, 1.0, 1, 2, {"p50": 1}, (Bar(1, 1, 99_999), Bar(2, 2, 1)))
    page = stats_page(replace(stats_of([row(0)]), captions=summary), "set")
    assert any(line[:48].split() == ["2", "▏", "<0.1%"] for line in page.splitlines())
