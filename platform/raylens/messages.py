"""Lines for people, each with how severe it is; whoever shows a line adds the word."""

import sys
from collections.abc import Callable
from typing import Literal, Self

__all__ = ["Line", "Say", "Severity", "print_line", "quiet", "severity_of", "warning", "with_severity"]

Severity = Literal["info", "warning"]
Say = Callable[[str], None]
"""A function that takes one line at a time for people to read; `severity_of` the line tells how severe it is."""


class Line(str):
    """A line of text that carries its severity, and is otherwise a `str` that any function can print."""

    severity: Severity

    def __new__(cls, text: str, severity: Severity = "info") -> Self:
        """Make a line of a text."""
        line = super().__new__(cls, text)
        line.severity = severity
        return line


def warning(text: str) -> Line:
    """Return a line of the severity ``warning``."""
    return Line(text, "warning")


def severity_of(line: str) -> Severity:
    """Return how severe a line is; a plain string is information."""
    return line.severity if isinstance(line, Line) else "info"


def with_severity(line: str) -> str:
    """Return a line as it is printed: a warning begins with the word."""
    severity = severity_of(line)
    return line if severity == "info" else f"{severity}: {line}"


def print_line(line: str) -> None:
    """Print a line to standard output, a warning with the word."""
    sys.stdout.write(f"{with_severity(line)}\n")


def quiet(line: str) -> None:
    """Take a line that nobody is to see."""
