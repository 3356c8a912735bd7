"""Pieces of parameters with all that training knows of them, however DeepSpeed divides them.

A checkpoint is made of these and not of DeepSpeed's partitions, so that any number of workers at any stage can take it
up: each takes the pieces that it needs.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["AVERAGE", "BUFFER", "WEIGHT", "Fragment", "copy_into", "key_of", "parse_key", "worker_slice"]

WEIGHT = "weight"
"""Of the tensors of a fragment, the master weights; others have the optimiser's names, such as ``exp_avg``."""
AVERAGE = "ema"
"""The kind of tensor that holds a fragment's moving average."""
BUFFER = "buffer:"
"""The prefix of a module's buffers among the tensors that belong to one worker."""


@dataclass(frozen=True)
class Fragment:
    """Elements ``start .. stop-1`` of a flattened parameter, as this worker has them."""

    name: str
    start: int
    stop: int
    tensors: "Mapping[str, Tensor]"
    """By kind, flat views into the state of training; fp32."""

    def cut(self, start: int, stop: int) -> "Fragment":
        """A part of it, by places in the parameter."""
        within = slice(start - self.start, stop - self.start)
        return Fragment(self.name, start, stop, {kind: tensor[within] for kind, tensor in self.tensors.items()})


def key_of(name: str, start: int, kind: str) -> str:
    """The name of a tensor in a file of fragments."""
    return f"{name}:{start}:{kind}"


def parse_key(key: str) -> tuple[str, int, str]:
    """Parameter, first element and kind from a name in a file of fragments."""
    name, start, kind = key.rsplit(":", 2)
    return name, int(start), kind


def worker_slice(fragment: Fragment, rank: int, workers: int) -> Fragment:
    """A worker's share of a fragment that all of them have, in equal parts."""
    count = fragment.stop - fragment.start
    return fragment.cut(fragment.start + rank * count // workers, fragment.start + (rank + 1) * count // workers)


def copy_into(fragments: Iterable[Fragment], pieces: "Mapping[str, Tensor]") -> int:
    """Fill fragments from pieces, as a file has them; elements that were filled.

    Args:
        fragments: live views.
        pieces: flat tensors by `key_of`, cut in any way; those of other parameters are passed over.
    """
    import torch

    found: dict[tuple[str, str], list[tuple[int, Tensor]]] = {}
    for key, tensor in pieces.items():
        name, start, kind = parse_key(key)
        found.setdefault((name, kind), []).append((start, tensor))
    with torch.no_grad():
        return sum(
            _copy(fragment, target, start, piece)
            for fragment in fragments
            for kind, target in fragment.tensors.items()
            for start, piece in found.get((fragment.name, kind), ())
        )


def _copy(fragment: Fragment, target: "Tensor", start: int, piece: "Tensor") -> int:
    """Copy what a piece, which begins at element ``start``, and a fragment share; elements that were copied."""
    low, high = max(start, fragment.start), min(start + len(piece), fragment.stop)
    if low >= high:
        return 0
    target[low - fragment.start : high - fragment.start].copy_(piece[low - start : high - start])
    return high - low
