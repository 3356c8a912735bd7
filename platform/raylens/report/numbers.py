"""The formats of every number that people see, on pages, in terminals and in tables.

A dash stands for a value that is missing or no number.
"""

import json
import math
from collections.abc import Sequence

__all__ = [
    "ABSENT",
    "GIB",
    "bytes_text",
    "count_text",
    "duration_text",
    "finite",
    "memory_text",
    "money_text",
    "number_text",
    "percent_text",
    "printable",
    "rate_text",
    "short_text",
    "shortened",
    "value_text",
]

ABSENT = "–"
GIB = 2**30
LARGEST = 1e100
"""Numbers beyond are none: squares and spans of what is drawn must stay finite."""
LONGEST = 1e15
"""Up to which a number is written without an exponent."""
COUNTS = ("", "k", "M", "B", "T")
BYTES = (" B", " kB", " MB", " GB", " TB", " PB", " EB")
PARTS = ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))


def finite(value: object) -> float | None:
    """Return a value as a float if it is a number that can be drawn, otherwise None; a truth value is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < LARGEST and math.isfinite(value) else None


def number_text(value: object) -> str:
    """Write a measured value in four digits: ``12``, ``1,234.6``, ``0.0001234``."""
    number = finite(value)
    if number is None:
        return ABSENT
    if number == int(number) and abs(number) < LONGEST:
        return f"{int(number):,}"
    return f"{number:,.1f}" if 1000 <= abs(number) < 1e9 else f"{number:.4g}"


def count_text(value: object, noun: str = "") -> str:
    """Write a whole number, with its noun where one is named: ``1,234 images``; of 1 the noun loses its plural's s."""
    number = finite(value)
    if number is None:
        return ABSENT
    count = f"{number:,.0f}" if abs(number) < LONGEST else f"{number:.4g}"
    return f"{count} {noun if number != 1 else _singular(noun)}".rstrip()


def short_text(number: float, digits: int = 4) -> str:
    """Write a number as it stands at a tick: ``1.5k``, ``2M``."""
    return _scaled(number, COUNTS, digits)


def percent_text(share: float, digits: int = 1) -> str:
    """Write a share as a percentage; what is there but would be rounded to zero is ``<0.1%``."""
    least = 10.0**-digits
    return f"<{least:.{digits}f}%" if 0 < 100 * share < least / 2 else f"{100 * share:.{digits}f}%"


def duration_text(seconds: float) -> str:
    """Write a time in its two largest units: ``2 d 3 h``, ``3 h 20 min``, ``4 min 10 s`` or ``12.3 s``."""
    for size, unit, below, small in PARTS:
        if seconds >= size:
            whole, rest = divmod(int(seconds), size)
            return f"{whole:,} {unit} {rest // below} {small}"
    return f"{seconds:.1f} s"


def bytes_text(size: float) -> str:
    """Write the size of what is stored or sent in three digits, in powers of 1000: ``1.5 MB``."""
    return _scaled(size, BYTES, 3)


def memory_text(size: float, digits: int = 1) -> str:
    """Write the size of memory in powers of 1024, as its makers count it: ``79.6 GiB``."""
    return f"{size / GIB:,.{digits}f} GiB"


def rate_text(per_second: float, noun: str) -> str:
    """Write how many there are in a second: ``855 pairs/s``."""
    return f"{per_second:,.0f} {noun}/s"


def money_text(amount: float) -> str:
    """Write a price in the currency that its parts were named in: ``1,234.50``."""
    return f"{amount:,.2f}"


def value_text(value: object) -> str:
    """Write a value of a configuration as JSON does, but numbers in four digits and texts without quotes."""
    if finite(value) is not None:
        return number_text(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def shortened(text: str, longest: int) -> str:
    """Return a text of at most ``longest`` letters, with an ellipsis in place of what does not fit."""
    return text if len(text) <= longest else f"{text[: longest - 1].rstrip()}…"


def printable(text: str) -> str:
    """Return a text in which each control character is a replacement mark, so that it can steer no terminal."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)


def _scaled(number: float, units: Sequence[str], digits: int) -> str:
    power = 0
    while abs(number) >= 1000 - 0.5 * 10 ** (3 - digits) and power < len(units) - 1:
        number, power = number / 1000, power + 1
    return f"{number:.{digits}g}{units[power]}"


def _singular(noun: str) -> str:
    return f"{noun.removesuffix('es')}" if noun.endswith("sses") else noun.removesuffix("s")
