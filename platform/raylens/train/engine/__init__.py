"""The engine of a training step: forward pass, backward pass and update under DeepSpeed ZeRO."""

from typing import TYPE_CHECKING

from raylens.lazy import lazy_face

if TYPE_CHECKING:
    from raylens.train.engine.forward import build_forward
    from raylens.train.engine.optimizer import parameter_groups

__all__ = [
    "build_forward",
    "parameter_groups",
]

__getattr__ = lazy_face(
    __name__,
    {
        "build_forward": "forward",
        "parameter_groups": "optimizer",
    },
)
