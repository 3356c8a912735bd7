"""The settings of a run in the form in which trackers keep them."""

import json
from collections.abc import Iterator
from typing import Any

from raylens.config import RunConfig

__all__ = ["flat", "tree"]


def tree(run: RunConfig) -> dict[str, Any]:
    """Return the settings as plain values, without those of tracking."""
    return {key: value for key, value in run.model_dump(mode="json").items() if key != "tracking"}


def flat(run: RunConfig) -> dict[str, str]:
    """Return the settings with dotted keys, as ``--set`` takes them; values that are not text are JSON."""
    return dict(_leaves("", tree(run)))


def _leaves(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if value and isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, child in items:
            yield from _leaves(f"{path}.{key}" if path else str(key), child)
    else:
        yield path, value if isinstance(value, str) else json.dumps(value)
