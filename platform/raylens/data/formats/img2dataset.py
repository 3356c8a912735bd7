"""What img2dataset writes beside its shards: ``00000_stats.json`` counts what became of those in ``00000.tar``."""

import json

from raylens.errors import NotFoundError
from raylens.storage import ObjectInfo, Store

__all__ = ["sibling_stats"]


def sibling_stats(store: Store, shard: ObjectInfo) -> dict[str, int]:
    """Samples that the shard should have (``expected``), and those that could not be fetched or resized (``failed``).

    Empty where there are no stats, or none that count.
    """
    try:
        stats = json.loads(store.read(f"{shard.path.removesuffix('.tar')}_stats.json"))
    except (NotFoundError, ValueError):  # a courtesy of the tool that wrote the shard; training does not depend on it
        return {}
    names = ("successes", "failed_to_download", "failed_to_resize")
    if not isinstance(stats, dict) or not all(isinstance(stats.get(name), int) for name in names):
        return {}
    return {"expected": stats["successes"], "failed": stats["failed_to_download"] + stats["failed_to_resize"]}
