"""The tensors of a TorchScript archive, read without running or unpickling any of its code.

Such an archive is a zip file: ``data.pkl`` has the tree of modules, and each ``data/<n>`` the bytes of one tensor.
`torch.jit.load` would compile the code beside them; here classes become plain holders of attributes, and the few
functions that build tensors are our own.
"""

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from raylens.errors import BundleError

__all__ = ["is_torchscript", "read_torchscript"]

DTYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
}


def is_torchscript(path: Path) -> bool:
    """Tell whether the file is such an archive (and not one of plain tensors, which has no constants)."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Read every tensor of the archive, by its dotted name.

    Raises:
        BundleError: the archive is damaged, or holds classes or functions that no tensor or module needs.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1)
            with archive.open(name) as stream:
                root = _Reader(stream, archive, name.removesuffix("data.pkl")).load()
    # A forged archive raises almost anything, and the lines only read it.
    except Exception as error:  # noqa: BLE001
        raise BundleError(f"{path} is not a TorchScript archive that can be read safely: {error}") from None
    return dict(_tensors(root))


class _Holder:
    """A stand-in for every class of the archive; its attributes are those that were saved."""


class _Reader(pickle.Unpickler):
    """An unpickler that builds tensors and holders, and refuses any other function or class."""

    def __init__(self, stream: IO[bytes], archive: zipfile.ZipFile, prefix: str) -> None:
        super().__init__(stream)
        self._archive, self._prefix = archive, prefix

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return type("Holder", (_Holder,), {})
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        allowed: dict[tuple[str, str], Callable[..., Any]] = {
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
            ("collections", "OrderedDict"): OrderedDict,
            ("torch.jit._pickle", "restore_type_tag"): lambda value, _: value,
            ("torch.jit._pickle", "build_intlist"): list,
            ("torch.jit._pickle", "build_doublelist"): list,
            ("torch.jit._pickle", "build_boollist"): list,
            ("torch.jit._pickle", "build_tensorlist"): list,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"it requires {module}.{name}")
        return allowed[module, name]

    def persistent_load(self, pid: Any) -> Tensor:
        _, dtype, key, _, count = pid
        data = bytearray(self._archive.read(f"{self._prefix}data/{key}"))
        return torch.frombuffer(data, dtype=dtype, count=count) if count else torch.empty(0, dtype=dtype)


def _tensor(storage: Tensor, offset: int, size: Sequence[int], stride: Sequence[int], *_: Any) -> Tensor:
    return torch.as_strided(storage, tuple(size), tuple(stride), offset)


def _tensors(node: Any, prefix: str = "") -> list[tuple[str, Tensor]]:
    if isinstance(node, Tensor):
        return [(prefix.removesuffix("."), node)]
    if not isinstance(node, _Holder):
        return []
    return [item for name, value in vars(node).items() for item in _tensors(value, f"{prefix}{name}.")]
