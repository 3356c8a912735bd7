"""The ingress of a service: authentication, limits, routing to replicas, telemetry."""

from typing import TYPE_CHECKING

from raylens.lazy import lazy_face

if TYPE_CHECKING:
    from raylens.serve.gateway.keys import new_key

__all__ = [
    "new_key",
]

__getattr__ = lazy_face(
    __name__,
    {
        "new_key": "keys",
    },
)
