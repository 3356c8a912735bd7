"""Weights of an architecture: a model built without numbers, to be filled, and what does not fit into it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["difference", "unfilled"]

SHOWN = 5
_DRAWS: frozenset[Any] = frozenset(
    (torch.nn.init.normal_, torch.nn.init.uniform_, torch.nn.init.kaiming_uniform_, Tensor.normal_, Tensor.uniform_)
)


class _DrawNothing(TorchFunctionMode):
    """Leaves a weight as it is where it would be drawn."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _DRAWS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


@contextmanager
def unfilled() -> Iterator[None]:
    """Modules that are made inside have weights on the device "meta": the caller assigns those that count.

    What draws weights would draw there in vain, and by code that torch has in Python: it imports all of torch._dynamo,
    1.5 s of a core and 160 MB in every replica.
    """
    with torch.device("meta"), _DrawNothing():
        yield


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
