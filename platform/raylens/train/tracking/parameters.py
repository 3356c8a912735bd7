"""The settings of a run as other tools keep them."""

import json
from collections.abc import Iterator
from typing import Any

from raylens.config import RunConfig

__all__ = ["flat", "tree"]


def tree(run: RunConfig) -> dict[str, Any]:
    """Plain values, without what says where the run is tracked."""
    return {key: value for key, value in run.model_dump(mode="json").items() if key != "tracking"}


def flat(run: RunConfig) -> dict[str, str]:
    """Dotted keys, as ``--set`` has them, and texts; what is not text is JSON."""
    return dict(_leaves("", tree(run)))


def _leaves(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if value and isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, child in items:
            yield from _leaves(f"{path}.{key}" if path else str(key), child)
    else:
        yield path, value if isinstance(value, str) else json.dumps(value)
