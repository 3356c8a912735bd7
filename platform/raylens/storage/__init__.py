"""Object stores by URI: folders of this machine and S3 buckets, behind one small interface."""

from raylens.storage.base import ObjectInfo, Store
from raylens.storage.open import open_store

__all__ = ["ObjectInfo", "Store", "open_store"]
