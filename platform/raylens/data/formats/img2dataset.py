"""What img2dataset writes beside its shards: ``00000_stats.json`` counts what became of those in ``00000.tar``."""

import json

from raylens.errors import NotFoundError
from raylens.storage import ObjectInfo, Store

__all__ = ["sibling_stats"]

NAMES = ("successes", "failed_to_download", "failed_to_resize")
LARGEST = 2**48
"""Samples that a shard may claim: far more than any has, and two such counts fit the manifest's 64 bits."""


def sibling_stats(store: Store, shard: ObjectInfo) -> dict[str, int]:
    """Samples that the shard should have (``expected``), and those that could not be fetched or resized (``failed``).

    Empty where there are no stats, or none that count.
    """
    try:
        stats = json.loads(store.read(f"{shard.path.removesuffix('.tar')}_stats.json"))
    except (NotFoundError, ValueError, RecursionError):  # a courtesy of the tool that wrote the shard
        return {}
    counts = [_count(stats.get(name)) for name in NAMES] if isinstance(stats, dict) else []
    whole = [count for count in counts if count is not None]
    return {"expected": whole[0], "failed": sum(whole[1:])} if len(whole) == len(NAMES) else {}


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and 0 <= value <= LARGEST else None
