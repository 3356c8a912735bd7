"""Image-text shards: what there is (manifest), in which order (plan), and how it reaches a worker (stream)."""

from raylens.data.manifest import Manifest
from raylens.data.plan import Plan
from raylens.data.shards import RawSample, list_shards, walk_shard

__all__ = ["Manifest", "Plan", "RawSample", "list_shards", "walk_shard"]
