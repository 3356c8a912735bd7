"""Quotes in CSV and TSV: what csv writes is read, and a stray quote never hides or invents rows."""

import csv
import io
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylens.data.formats.delimited import DelimitedText

Rows = list[tuple[int, list[str] | None]]

PLAIN = str.maketrans({"\n": "", "\r": "", ",": ", "})
"""Keeps quotes away from the start of a field."""
FIELDS = st.text(st.sampled_from(list('ab ,\t\n\r"\u2028')), max_size=8)


def rows_of(text: str, delimiter: str = ",", image: int = 0) -> Rows:
    """The rows after the header."""
    table = DelimitedText(iter(io.StringIO(text, newline="")), delimiter)
    header = table.header()
    assert header
    return list(table.rows(len(header), image))


def written(rows: list[list[str]], delimiter: str) -> str:
    sink = io.StringIO(newline="")
    csv.writer(sink, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows(rows)
    return sink.getvalue()


@given(captions=st.lists(FIELDS, max_size=6), delimiter=st.sampled_from([",", "\t"]), image=st.integers(0, 1))
def test_what_csv_writes_is_read(captions: list[str], delimiter: str, image: int) -> None:
    rows = [[f"{number}.png", text.replace("\t", "")] for number, text in enumerate(captions)]
    rows = rows if image == 0 else [row[::-1] for row in rows]
    found = rows_of(written([["x", "y"], *rows], delimiter), delimiter, image)
    assert [row for _, row in found] == rows


@given(lines=st.lists(st.tuples(FIELDS, FIELDS), max_size=6))
def test_without_quotes_at_the_start_of_a_field_csv_agrees(lines: list[tuple[str, str]]) -> None:
    text = "".join(",".join(f"x{field}".translate(PLAIN) for field in pair) + "\n" for pair in lines)
    expected = [row if len(row) == 2 else None for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    assert [row for _, row in rows_of("image,caption\n" + text)] == expected


@given(text=st.text(st.sampled_from(list('ab,\t\n"')), max_size=60), delimiter=st.sampled_from([",", "\t"]))
def test_no_line_is_lost(text: str, delimiter: str) -> None:
    """Each line that is not blank is a row, in a row's quotes, or counted."""
    lines = io.StringIO(text, newline="").readlines()
    found = rows_of(f"image{delimiter}caption\n{text}", delimiter)
    starts = [number - 2 for number, _ in found]
    assert starts == sorted(set(starts))
    for at, line in enumerate(lines):
        start = max((one for one in starts if one <= at), default=None)
        if line.strip("\n") and at not in starts:
            assert start is not None
            row = found[starts.index(start)][1]
            assert row is not None
            assert len(row) == 2
            assert "".join(row).count("\n") >= at - start
    for number, row in found:
        assert row is None or len(row) == 2, number


def test_a_tsv_whose_captions_begin_with_quotes_loses_none() -> None:
    captions = [f"caption {number}" for number in range(5000)]
    for number in (7, 900, 901, 2500, 4998):
        captions[number] = '"' + captions[number]
    captions[1200], captions[3000] = "a ruler of 5'10\"", 'the "big" one'
    text = "image\tcaption\n" + "".join(f"{number}.jpg\t{caption}\n" for number, caption in enumerate(captions))
    assert rows_of(text, "\t") == [(at + 2, [f"{at}.jpg", caption]) for at, caption in enumerate(captions)]


def test_a_tsv_with_well_formed_quotes_is_read_by_them() -> None:
    text = 'image\tcaption\n"1.png"\t"a\tb"\n2.png\t"two\nlines, ""quoted"""\n3.png\t"he" said\n'
    assert rows_of(text, "\t") == [
        (2, ["1.png", "a\tb"]),
        (3, ["2.png", 'two\nlines, "quoted"']),
        (5, ["3.png", '"he" said']),
    ]


def test_an_unclosed_quote_of_a_csv_spoils_one_line() -> None:
    good = "".join(f"{number}.jpg,fine\n" for number in range(3, 500))
    text = 'image,caption\n1.jpg,"unclosed\n2.jpg,ok\n' + good
    for end in ("", '500.jpg,"also"\n', '500.jpg,"open\n', '500.jpg,"a, b"\n'):
        found = rows_of(text + end)
        assert found[0] == (2, None)
        assert found[1] == (3, ["2.jpg", "ok"])
        assert [row is None for _, row in found].count(True) == (2 if "open" in end else 1)
        assert len(found) == 499 + bool(end)


@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_quotes_around_rows_are_not_believed(delimiter: str) -> None:
    lines = ['1.jpg,"unclosed', "2.jpg,ok", "3.jpg,5'10\"", "4.jpg,d"]
    text = "\n".join(["image,caption", *lines]).replace(",", delimiter)
    rows = [line.split(",") for line in lines] if delimiter == "\t" else [None, None, None, ["4.jpg", "d"]]
    assert rows_of(text, delimiter) == [(at + 2, row) for at, row in enumerate(rows)]


def test_a_caption_longer_than_the_csv_module_takes_is_one_row() -> None:
    long = "words, and \n more\n" * 20_000
    text = written([["image", "caption"], ["1.png", long], ["2.png", "b"]], ",")
    assert [row for _, row in rows_of(text)] == [["1.png", long], ["2.png", "b"]]
    evil = written([["image", "caption"], ["1.png", "2.png,wrong\n" * 20_000], ["3.png", "c"]], ",")
    found = rows_of(evil)
    assert [row for _, row in found if row] == [["3.png", "c"]]
    assert len(found) == 20_002


def test_quotes_without_end_take_time_by_the_line() -> None:
    """Each of these lines leaves a quote open after closing one, so that no row ends."""
    text = "image,caption\n" + 'x",y,"z\n' * 100_000
    began = time.monotonic()
    assert [row for _, row in rows_of(text)] == [None] * 100_000
    assert time.monotonic() - began < 20


def test_a_header_in_quotes() -> None:
    assert DelimitedText(iter(['"a ""b""","c\n', 'd"\n']), ",").header() == ['a "b"', "c\nd"]
    assert DelimitedText(iter([]), ",").header() == []
    assert DelimitedText(iter(["\r\n", "a\n"]), ",").header() == []
    assert DelimitedText(iter(['"a"b,c\n']), ",").header() is None
