"""Whole weights from the pieces of a checkpoint, without DeepSpeed, in the memory of the weights and one file."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from raylens.config import ModelConfig
from raylens.errors import CheckpointError
from raylens.models import DualEncoder, unfilled
from raylens.train.checkpoint.fragments import AVERAGE, BUFFER, WEIGHT, parse_key

__all__ = ["Consolidator", "consolidate"]

INSIDE = "model."
"""Prefix of the model within the module of a training step."""


class Consolidator:
    """Assembles the weights of a model from pieces that are added in any order."""

    def __init__(self, config: ModelConfig, *, averaged: bool) -> None:
        """Prepare for the weights of a model; ``averaged`` takes the moving average of those that were trained."""
        with unfilled():
            model = DualEncoder(config, end_id=0, mean=(0.5,) * 3, std=(0.5,) * 3)
        self._shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
        self._parameters = {name for name, _ in model.named_parameters()}
        self._found: dict[tuple[str, str], tuple[Tensor, int]] = {}
        self._buffers: dict[str, Tensor] = {}
        self._kinds = (AVERAGE, WEIGHT) if averaged else (WEIGHT,)

    def add(self, pieces: Mapping[str, Tensor], local: Mapping[str, Tensor]) -> None:
        """Add the pieces of a file, by `fragments.key_of`, and its worker's local state, of which the first counts."""
        for key, piece in pieces.items():
            name, start, kind = parse_key(key)
            name = name.removeprefix(INSIDE)
            if kind in self._kinds and name in self._parameters:
                self._put(name, kind, start, piece)
        for key, tensor in local.items():
            name = key.removeprefix(BUFFER + INSIDE)
            if key != name and name in self._shapes:
                self._buffers.setdefault(name, tensor)

    def _put(self, name: str, kind: str, start: int, piece: Tensor) -> None:
        whole, filled = self._found.get((name, kind)) or (torch.empty(self._shapes[name].numel()), 0)
        whole[start : start + len(piece)] = piece
        self._found[name, kind] = whole, filled + len(piece)

    def weights(self) -> dict[str, Tensor]:
        """Return the state of the model.

        Raises:
            CheckpointError: a parameter is missing or incomplete; names it.
        """
        return {name: self._buffers[name] if name in self._buffers else self._whole(name) for name in self._shapes}

    def _whole(self, name: str) -> Tensor:
        shape = self._shapes[name]
        for kind in self._kinds:
            # Locked weights have no average.
            whole, filled = self._found.get((name, kind), (None, 0))
            if whole is not None and filled == shape.numel():
                return whole.view(shape)
        raise CheckpointError(f"the checkpoint lacks {name}, or a part of it: resume from the one before it")


def consolidate(
    config: ModelConfig, parts: Iterable[Mapping[str, Tensor]], *, averaged: bool = False
) -> dict[str, Tensor]:
    """Return the weights from parts that are in memory; see `Consolidator`."""
    assembly = Consolidator(config, averaged=averaged)
    for part in parts:
        assembly.add(part, {})
    return assembly.weights()
