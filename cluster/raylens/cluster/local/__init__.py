"""A cluster of several real Ray nodes on this machine."""

from typing import TYPE_CHECKING

from raylens.lazy import lazy_face

if TYPE_CHECKING:
    from raylens.cluster.local.cluster import LocalCluster
    from raylens.cluster.local.commands import NodeShape

__all__ = [
    "LocalCluster",
    "NodeShape",
]

__getattr__ = lazy_face(
    __name__,
    {
        "LocalCluster": "cluster",
        "NodeShape": "commands",
    },
)
