"""A run on Ray Train: its trainer, its resources, and the channel between workers and driver."""

from typing import TYPE_CHECKING

from raylens.lazy import lazy_face

if TYPE_CHECKING:
    from raylens.train.ray.resources import check_resources, placement_of, resource_requests

__all__ = [
    "check_resources",
    "placement_of",
    "resource_requests",
]

__getattr__ = lazy_face(
    __name__,
    {
        "check_resources": "resources",
        "placement_of": "resources",
        "resource_requests": "resources",
    },
)
