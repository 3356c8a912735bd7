"""Reading of weight files without running any code that they contain."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from raylens.errors import BundleError
from raylens.interop.torchscript import is_torchscript, read_torchscript

__all__ = ["read_tensors"]

WRAPPINGS = ("module.", "_orig_mod.")
"""The prefixes that DistributedDataParallel and torch.compile add to every name."""


def read_tensors(path: Path) -> tuple[dict[str, Tensor], bool]:
    """Return the tensors of ``.safetensors``, ``.pt`` or ``.bin``, and whether the file is a TorchScript archive.

    Pickled files are read with ``weights_only``, TorchScript archives without their code.

    Raises:
        BundleError: the file is missing, damaged, or holds more than tensors.
    """
    if not path.is_file():
        raise BundleError(f"no such file: {path}")
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(path), False
        except safetensors.SafetensorError as error:
            raise BundleError(f"{path} is damaged: {error}") from None
    if is_torchscript(path):
        return _unwrapped(read_torchscript(path)), True
    return _unwrapped(_state(_unpickled(path), path)), False


def _unpickled(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    # A file that is not a pickle, or a forged one, raises almost anything, and the line does nothing else.
    except Exception as error:  # noqa: BLE001
        reason = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
        raise BundleError(
            f"{path} is damaged or holds more than tensors, which is never unpickled: convert it to safetensors "
            f"if you trust it ({reason[:200]})"
        ) from None


def _state(tree: Any, path: Path) -> dict[str, Tensor]:
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(tree, Mapping) and isinstance(tree.get(key), Mapping):
            tree = tree[key]
    if not isinstance(tree, Mapping):
        raise BundleError(f"{path} holds a {type(tree).__name__}, expected a state dict of tensors")
    tensors = {str(name): value for name, value in tree.items() if isinstance(value, Tensor)}
    if not tensors:
        raise BundleError(f"{path} holds no tensors")
    return tensors


def _unwrapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    for wrapping in WRAPPINGS * 2:
        if all(name.startswith(wrapping) for name in tensors):
            tensors = {name.removeprefix(wrapping): tensor for name, tensor in tensors.items()}
    return tensors
