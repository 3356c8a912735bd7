"""How two configurations differ, in the words of whoever wrote them."""

from collections.abc import Collection, Mapping
from typing import Any

__all__ = ["differences"]


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "", ignore: Collection[str] = ()
) -> list[str]:
    """A line for each key whose value is another, as ``optim.peak_lr was 0.1, is now 0.2``.

    Args:
        old: plain values.
        new: plain values.
        prefix: stands before each key, with its dot.
        ignore: keys of the uppermost level that may differ.
    """
    lines = []
    for key in [*old, *(key for key in new if key not in old)]:
        was, now = old.get(key), new.get(key)
        if key in ignore:
            continue
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            lines += differences(was, now, f"{prefix}{key}.")
        elif was != now:
            lines.append(f"{prefix}{key} was {was!r}, is now {now!r}")
    return lines
