"""Object stores by URI: local folders and buckets, behind one small interface."""

from raylens.storage.base import ObjectInfo, Store
from raylens.storage.open import open_store
from raylens.storage.s3.reads import be_patient

__all__ = ["ObjectInfo", "Store", "be_patient", "open_store"]
