"""Image-text data sets: which samples exist (manifest), their order (plan), and how they reach a worker (stream)."""

from typing import TYPE_CHECKING

from raylens.lazy import lazy_face

if TYPE_CHECKING:
    from raylens.data.formats import RawSample
    from raylens.data.manifest import Manifest
    from raylens.data.plan import Plan
    from raylens.data.source import Source

__all__ = ["Manifest", "Plan", "RawSample", "Source"]

__getattr__ = lazy_face(
    __name__,
    {
        "Manifest": "manifest",
        "Plan": "plan",
        "RawSample": "formats",
        "Source": "source",
    },
)
