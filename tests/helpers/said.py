"""What a function under test says: it is kept, or must not be."""

import pytest

from raylens.messages import Severity, severity_of

__all__ = ["Said", "forbidden"]


class Said:
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[tuple[Severity, str]] = []

    def __call__(self, text: str) -> None:
        self.lines.append((severity_of(text), text))

    @property
    def texts(self) -> list[str]:
        return [text for _, text in self.lines]


def forbidden(text: str) -> None:
    """Nothing is to be said."""
    pytest.fail(f"{severity_of(text)}: {text}")
