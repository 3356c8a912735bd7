"""Rows of text with delimiters and quotes: an unclosed quote spoils its own line only."""

import re
from collections import deque
from collections.abc import Iterator

from raylens.data.formats.base import IMAGE_SUFFIXES

__all__ = ["DelimitedText"]

LONGEST = 2**24
"""Most characters of a row; a quote that is open for longer counts as never closed."""
QUOTED = re.compile(r'((?:[^"]++|"")*+)("?)')

Row = list[str]


class DelimitedText:
    """CSV as in RFC 4180, and TSV, whose tools often write quotes as ordinary characters; rows are read once.

    In both, a field that begins with a quote ends at the quote before the next delimiter or end of line, and may hold
    delimiters, line breaks and doubled quotes. If the quote is not closed like this, or the row does not have as many
    fields as the header, a CSV line is malformed and a TSV line is read literally, with its quotes; reading continues
    with the next line. If quotes are closed but enclose lines that are rows themselves, the table is ambiguous: these
    lines are malformed in a CSV and read literally in a TSV.
    """

    def __init__(self, lines: Iterator[str], delimiter: str) -> None:
        self._lines, self._delimiter = lines, delimiter
        self._again: deque[str] = deque()
        self._number = 0

    def header(self) -> Row | None:
        """Return the first row; empty if its line is blank or missing, None if a quote is not closed."""
        first = self._next()
        return self._record([first], None) if first and first.strip("\r\n") else []

    def rows(self, width: int, image: int) -> Iterator[tuple[int, Row | None]]:
        """Yield the other non-blank rows, each with the number of its first line; None for a malformed line.

        Args:
            width: number of fields in a row.
            image: index of the field that holds the path of an image.
        """
        while (first := self._next()) is not None:
            if not first.strip("\r\n"):
                continue
            number, lines = self._number, [first]
            row = self._record(lines, width)
            torn = row is not None and self._swallows(lines, width, image)
            if row is not None and not torn:
                yield number, row
            elif torn and self._delimiter == ",":
                yield from ((number + more, None) for more in range(len(lines)))
            else:
                self._again.extendleft(reversed(lines[1:]))
                self._number = number
                yield number, self._literal_row(first, width)

    def _next(self) -> str | None:
        line = self._again.popleft() if self._again else next(self._lines, None)
        self._number += line is not None
        return line

    def _record(self, lines: list[str], width: int | None) -> Row | None:
        """Return the row that begins in the last of ``lines``; append the further lines that it takes."""
        open_row, held = _OpenRow(self._delimiter), 0
        while open_row.take(lines[-1]) and (width is None or len(open_row.fields) <= width):
            held += len(lines[-1])
            following = self._next() if open_row.is_open and held < LONGEST else None
            if following is None:
                whole = not open_row.is_open and (width is None or len(open_row.fields) == width)
                return open_row.fields if whole else None
            lines.append(following)
        return None

    def _literal_row(self, line: str, width: int) -> Row | None:
        row = line.rstrip("\r\n").split(self._delimiter)
        return row if self._delimiter == "\t" and len(row) == width else None

    def _swallows(self, lines: list[str], width: int, image: int) -> bool:
        """Return whether a row of several lines seems to contain other rows."""
        if len(lines) == 1:
            return False
        before = _OpenRow(self._delimiter)
        before.take(lines[0])
        # If the image follows the quote, the last line holds the image, as a row of its own would.
        inner = lines[1:] if len(before.fields) > image else lines[1:-1]
        return any(self._is_row(line, width, image) for line in inner)

    def _is_row(self, line: str, width: int, image: int) -> bool:
        # Captions have commas but hardly tabs: in a CSV, the field must also look like an image.
        row = line.rstrip("\r\n").split(self._delimiter)
        if self._delimiter == "\t":
            return len(row) == width
        return len(row) >= width and row[image].strip().lower().endswith(
            tuple(f".{suffix}" for suffix in IMAGE_SUFFIXES)
        )


class _OpenRow:
    """A row while its lines are being read."""

    def __init__(self, delimiter: str) -> None:
        self.fields: Row = []
        self.is_open = False
        """Whether the last line ended inside a quoted field."""
        self._delimiter = delimiter
        self._pieces: Row = []

    def take(self, line: str) -> bool:
        """Add a line, with its line break; return False if text stands between a closing quote and the delimiter."""
        stop, at = len(line.rstrip("\r\n")), 0
        while True:
            if not self.is_open and line[at : at + 1] == '"':
                self.is_open, at = True, at + 1
            if self.is_open:
                quoted = QUOTED.match(line, at)
                assert quoted is not None  # it matches an empty text, too
                self._pieces.append(quoted[1])
                if not quoted[2]:
                    return True
                at = quoted.end()
                self.fields.append("".join(self._pieces).replace('""', '"'))
                self._pieces, self.is_open = [], False
                if at < stop and line[at] != self._delimiter:
                    return False
            else:
                end = line.find(self._delimiter, at)
                end = stop if end < 0 else end
                self.fields.append(line[at:end])
                at = end
            if at >= stop:
                return True
            at += 1
