"""Lines for people, each with how severe it is; whoever prints a line adds the word."""

import sys
from typing import Literal, Protocol

__all__ = ["Say", "Severity", "print_line", "quiet", "with_severity"]

Severity = Literal["info", "warning"]


class Say(Protocol):
    """Takes one line at a time, for people to read."""

    def __call__(self, text: str, /, severity: Severity = "info") -> None:
        """Show the line, or keep it."""


def with_severity(text: str, severity: Severity) -> str:
    """Return a line as it is printed: a warning begins with the word."""
    return text if severity == "info" else f"{severity}: {text}"


def print_line(text: str, /, severity: Severity = "info") -> None:
    """Print a line to standard output."""
    sys.stdout.write(f"{with_severity(text, severity)}\n")


def quiet(text: str, /, severity: Severity = "info") -> None:
    """Take a line that nobody is to see."""
