"""Lines about progress on standard error, while a command works; results go to standard output."""

import time

from rich.console import Console
from rich.text import Text

from raylens.messages import severity_of, with_severity

__all__ = ["Lines"]


class Lines:
    """Prints lines that begin with the seconds since the start of the command."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self._began = time.monotonic()

    def say(self, text: str, *, style: str = "") -> None:
        """Print one line as it is, brackets and all; a warning is yellow."""
        seconds = (f"{time.monotonic() - self._began:6.1f} s", "dim")
        style = style or ("yellow" if severity_of(text) == "warning" else "")
        self.console.print(Text.assemble(seconds, "  ", (with_severity(text), style)), soft_wrap=True)
