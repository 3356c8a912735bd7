"""Pieces of parameters with their optimiser state, independent of how DeepSpeed partitions them.

A checkpoint consists of these and not of DeepSpeed's partitions, so that any number of workers at any stage can resume
from it: each reads the pieces that it needs.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["AVERAGE", "BUFFER", "WEIGHT", "Fragment", "copy_into", "key_of", "parse_key", "worker_slice"]

WEIGHT = "weight"
"""Kind of the tensor that holds a fragment's master weights; others have the optimiser's names, such as ``exp_avg``."""
AVERAGE = "ema"
"""Kind of the tensor that holds a fragment's moving average."""
BUFFER = "buffer:"
"""Prefix of a module's buffers among the tensors that belong to one worker."""


@dataclass(frozen=True)
class Fragment:
    """Elements ``start .. stop-1`` of a flattened parameter, as this worker holds them."""

    name: str
    start: int
    stop: int
    tensors: "Mapping[str, Tensor]"
    """Flat fp32 views into the training state, by kind."""

    def cut(self, start: int, stop: int) -> "Fragment":
        """Return the part of a fragment between two elements of the parameter."""
        within = slice(start - self.start, stop - self.start)
        return Fragment(self.name, start, stop, {kind: tensor[within] for kind, tensor in self.tensors.items()})


def key_of(name: str, start: int, kind: str) -> str:
    """Return the name of a tensor in a file of fragments."""
    return f"{name}:{start}:{kind}"


def parse_key(key: str) -> tuple[str, int, str]:
    """Return parameter, first element and kind from the name of a tensor in a file of fragments."""
    name, start, kind = key.rsplit(":", 2)
    return name, int(start), kind


def worker_slice(fragment: Fragment, rank: int, workers: int) -> Fragment:
    """Return a worker's equal share of a fragment that all workers hold."""
    count = fragment.stop - fragment.start
    return fragment.cut(fragment.start + rank * count // workers, fragment.start + (rank + 1) * count // workers)


def copy_into(fragments: Iterable[Fragment], pieces: "Mapping[str, Tensor]") -> int:
    """Fill fragments from the pieces of a file, and return the number of elements that were filled.

    Args:
        fragments: live views.
        pieces: flat tensors by `key_of`, cut in any way; those of other parameters are ignored.
    """
    import torch

    by_kind: dict[tuple[str, str], list[tuple[int, Tensor]]] = {}
    for key, tensor in pieces.items():
        name, start, kind = parse_key(key)
        by_kind.setdefault((name, kind), []).append((start, tensor))
    with torch.no_grad():
        return sum(
            _copy(fragment, target, start, piece)
            for fragment in fragments
            for kind, target in fragment.tensors.items()
            for start, piece in by_kind.get((fragment.name, kind), ())
        )


def _copy(fragment: Fragment, target: "Tensor", start: int, piece: "Tensor") -> int:
    """Copy the elements that a piece from element ``start`` on shares with a fragment; return their number."""
    low, high = max(start, fragment.start), min(start + len(piece), fragment.stop)
    if low >= high:
        return 0
    target[low - fragment.start : high - fragment.start].copy_(piece[low - start : high - start])
    return high - low
