"""Models that are built to be filled: names, shapes and types of their weights, and no numbers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["unfilled"]

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
