"""Object stores by URI: local folders and buckets, behind one small interface."""

from typing import TYPE_CHECKING

from raylens.lazy import lazy_face
from raylens.storage.base import ObjectInfo, Store
from raylens.storage.open import open_store
from raylens.storage.s3.reads import be_patient

if TYPE_CHECKING:
    from raylens.storage.local import LocalStore

__all__ = [
    "LocalStore",
    "ObjectInfo",
    "Store",
    "be_patient",
    "open_store",
]

__getattr__ = lazy_face(
    __name__,
    {
        "LocalStore": "local",
    },
)
