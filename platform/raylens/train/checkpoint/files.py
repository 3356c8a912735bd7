"""A worker's part of a checkpoint as a file: pieces of parameters, and the state that belongs to the worker alone."""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from raylens.errors import CheckpointError, StorageError
from raylens.train.checkpoint.fragments import parse_key
from raylens.train.checkpoint.snapshot import Snapshot

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SavedFile", "overlapping", "read_part", "sha256_of", "write_part"]

LOCAL = "own|"
PART = re.compile(r"worker-(\d+)\.safetensors")


class SavedFile(BaseModel):
    """A file of a checkpoint, its path relative to the checkpoint's folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    size: int
    sha256: str
    worker: int
    pieces: dict[str, tuple[int, int]]
    """First element, and the one after the last, of each parameter of which the file has a piece."""


def write_part(snapshot: Snapshot, folder: Path, worker: int) -> tuple[Path, dict[str, tuple[int, int]]]:
    """Write a worker's part into a folder; return its path, and its pieces as in `SavedFile.pieces`.

    Raises:
        StorageError: the disk is full, or cannot be written to.
    """
    from safetensors.torch import save_file

    path = folder / f"worker-{worker:05d}.safetensors"
    try:
        save_file(snapshot.tensors | {LOCAL + name: tensor for name, tensor in snapshot.local.items()}, path)
    except Exception as error:  # noqa: BLE001 (safetensors has no class of its own for what the disk refuses)
        raise StorageError(f"cannot write {path}: {error}; free space in the folder for temporary files") from None
    pieces: dict[str, tuple[int, int]] = {}
    for key, tensor in snapshot.tensors.items():
        name, start, _ = parse_key(key)
        pieces[name] = (start, start + len(tensor))
    return path, pieces


def read_part(path: Path) -> "tuple[dict[str, Tensor], dict[str, Tensor]]":
    """Return the pieces of parameters in a file, and the state that belongs to its worker alone.

    Raises:
        CheckpointError: the file is not part of a checkpoint.
    """
    from safetensors.torch import load_file

    try:
        whole = load_file(path)
    except Exception as error:  # noqa: BLE001 (likewise)
        raise CheckpointError(f"{path.name} is not part of a checkpoint: {error}") from None
    local = {name.removeprefix(LOCAL): tensor for name, tensor in whole.items() if name.startswith(LOCAL)}
    return {name: tensor for name, tensor in whole.items() if not name.startswith(LOCAL)}, local


def overlapping(files: Iterable[SavedFile], wanted: Iterable[tuple[str, int, int]]) -> list[SavedFile]:
    """Return the files that overlap the ranges ``wanted``: parameter, first element, and the one after the last."""
    spans: dict[str, list[tuple[int, int]]] = {}
    for name, start, stop in wanted:
        spans.setdefault(name, []).append((start, stop))

    def has(file: SavedFile) -> bool:
        return any(
            start < high and low < stop
            for name, (low, high) in file.pieces.items()
            for start, stop in spans.get(name, ())
        )

    return [file for file in files if has(file)]


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
