"""Weights of an architecture: building a model without initialising it, and comparing weights with it."""

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
    """A mode in which initialising functions leave weights as they are."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _DRAWS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


@contextmanager
def unfilled() -> Iterator[None]:
    """Build modules with weights on the device "meta", within this context; the caller assigns the real weights.

    Initialisation would be in vain there, and torch runs it on "meta" by Python code that imports all of torch._dynamo:
    1.5 s of a core and 160 MB in every replica.
    """
    with torch.device("meta"), _DrawNothing():
        yield


def difference(expected: Mapping[str, Tensor], actual: Mapping[str, Tensor]) -> str:
    """List weights that are missing, unknown or of another shape; "" where names and shapes are the same."""
    lines = [f"{name} is missing" for name in expected if name not in actual]
    lines += [f"{name} is not known" for name in actual if name not in expected]
    lines += [
        f"{name} has shape {_shape(actual[name])}, expected {_shape(tensor)}"
        for name, tensor in expected.items()
        if name in actual and actual[name].shape != tensor.shape
    ]
    return "; ".join(lines[:SHOWN]) + (f"; and {len(lines) - SHOWN} more" if len(lines) > SHOWN else "")


def _shape(tensor: Tensor) -> tuple[Any, ...]:
    return tuple(tensor.shape)
