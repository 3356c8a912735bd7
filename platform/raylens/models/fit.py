"""Whether weights are those of an architecture, and what differs where they are not."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

__all__ = ["difference"]

SHOWN = 5


def difference(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """What is missing, not known, or of another shape; nothing where names and shapes are the same."""
    lines = [f"{name} is missing" for name in expected if name not in found]
    lines += [f"{name} is not known" for name in found if name not in expected]
    lines += [
        f"{name} has shape {_shape(found[name])}, expected {_shape(tensor)}"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    return "; ".join(lines[:SHOWN]) + (f"; and {len(lines) - SHOWN} more" if len(lines) > SHOWN else "")


def _shape(tensor: Tensor) -> tuple[Any, ...]:
    return tuple(tensor.shape)
