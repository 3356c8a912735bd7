"""Storage of trained encoders: the bundle, and the registry that numbers bundles and names them."""

from typing import TYPE_CHECKING

from raylens.lazy import lazy_face

if TYPE_CHECKING:
    from raylens.registry.bundle import Bundle
    from raylens.registry.encoder import Encoder
    from raylens.registry.interpolation import interpolate
    from raylens.registry.lineage import Interpolation, Lineage, Selection
    from raylens.registry.versions import Registry, Version

__all__ = ["Bundle", "Encoder", "Interpolation", "Lineage", "Registry", "Selection", "Version", "interpolate"]

__getattr__ = lazy_face(
    __name__,
    {
        "Bundle": "bundle",
        "Encoder": "encoder",
        "Interpolation": "lineage",
        "Lineage": "lineage",
        "Registry": "versions",
        "Selection": "lineage",
        "Version": "versions",
        "interpolate": "interpolation",
    },
)
