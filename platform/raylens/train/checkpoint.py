"""Checkpoints in object storage: each worker uploads its part; a manifest of hashes, written last, makes them exist.

checkpoints/step-00000100/<attempt>/...     files of one attempt to save; an interrupted one leaves only this
checkpoints/step-00000100/checkpoint.json   step, place in the data, hash of every file
"""

import hashlib
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

import torch.distributed as dist
from pydantic import BaseModel, ConfigDict, ValidationError

from raylens.errors import AlreadyExistsError, CheckpointError, RaylensError
from raylens.storage import Store
from raylens.train.cursor import Cursor

__all__ = ["CheckpointManifest", "Checkpoints", "SavedFile"]

T = TypeVar("T")
MANIFEST = "checkpoint.json"
COMPLETE = re.compile(rf"step-(\d+)/{re.escape(MANIFEST)}")
RANK = re.compile(r"zero_pp_rank_(\d+)_")


class Stateful(Protocol):
    """What has state spread over workers."""

    def save(self, folder: Path) -> None:
        """Write this worker's part."""
        ...

    def load(self, folder: Path) -> None:
        """Read this worker's part."""
        ...


class SavedFile(BaseModel):
    """A file of a checkpoint, relative to its folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    size: int
    sha256: str

    def wanted_by(self, rank: int) -> bool:
        """Whether a worker needs it: files without a rank in their name belong to all."""
        owner = RANK.search(self.path)
        return owner is None or int(owner.group(1)) == rank


class CheckpointManifest(BaseModel):
    """What a checkpoint is; without it, files are only leftovers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = 1
    step: int
    attempt: str
    workers: int
    zero_stage: int
    precision: str
    micro_batch: int | None = None
    """Pairs that went through the towers at a time; None in checkpoints that are older than the setting."""
    cursor: Cursor
    files: list[SavedFile]


class Checkpoints:
    """The checkpoints of a run."""

    def __init__(self, run: Store) -> None:
        self.store = run / "checkpoints"

    def steps(self) -> list[int]:
        """Steps with a complete checkpoint, ascending."""
        found = (COMPLETE.fullmatch(info.path) for info in self.store.list())
        return sorted(int(match.group(1)) for match in found if match)

    def newest(self) -> CheckpointManifest | None:
        """The newest complete checkpoint, if there is one.

        Raises:
            CheckpointError: its manifest cannot be read.
        """
        steps = self.steps()
        return self.manifest(steps[-1]) if steps else None

    def manifest(self, step: int) -> CheckpointManifest:
        """The manifest of a complete checkpoint."""
        try:
            return CheckpointManifest.model_validate_json((self._folder(step)).read(MANIFEST))
        except ValidationError as error:
            raise CheckpointError(f"{MANIFEST} of step {step} in {self.store.describe()} is damaged: {error}") from None

    def save(self, state: Stateful, attempt: str, describe: Callable[[list[SavedFile]], CheckpointManifest]) -> None:
        """Save the state of all workers; collective.

        Args:
            state: what to save.
            attempt: a name that no other try at saving this step has.
            describe: the manifest, given the files of all workers.
        """
        with tempfile.TemporaryDirectory(prefix="raylens-save-") as folder:
            state.save(Path(folder))
            manifest = describe([])
            mine = _together(lambda: self._upload(Path(folder), manifest.step, attempt))
        files = sorted((file for part in mine for file in part), key=lambda file: file.path)
        complete = describe(files)
        if dist.get_rank() == 0:
            self._publish(complete)
        dist.barrier()

    def _upload(self, folder: Path, step: int, attempt: str) -> list[SavedFile]:
        target, files = self._folder(step), []
        for source in sorted(path for path in folder.rglob("*") if path.is_file()):
            path = f"{attempt}/{source.relative_to(folder).as_posix()}"
            target.upload(source, path)
            files.append(SavedFile(path=path, size=source.stat().st_size, sha256=_sha256(source)))
        return files

    def _publish(self, manifest: CheckpointManifest) -> None:
        try:
            self._folder(manifest.step).write_once(MANIFEST, manifest.model_dump_json(indent=1).encode())
        except AlreadyExistsError:
            # A restart from an older checkpoint came by this step again. The one there is complete and equal.
            self._folder(manifest.step).delete_tree(manifest.attempt)

    def load(self, state: Stateful, manifest: CheckpointManifest) -> None:
        """Restore this worker's part of the state; collective.

        Raises:
            CheckpointError: a file is missing or differs from its hash.
        """
        with tempfile.TemporaryDirectory(prefix="raylens-load-") as folder:
            rank = dist.get_rank()
            wanted = [file for file in manifest.files if file.wanted_by(rank)]
            _together(lambda: self.fetch(manifest, wanted, Path(folder)))
            state.load(Path(folder))

    def fetch(self, manifest: CheckpointManifest, files: list[SavedFile], folder: Path) -> None:
        """Download files of a checkpoint and check each against its hash.

        Raises:
            CheckpointError: a file differs from its hash.
        """
        for file in files:
            target = folder / file.path.removeprefix(f"{manifest.attempt}/")
            target.parent.mkdir(parents=True, exist_ok=True)
            self._folder(manifest.step).download(file.path, target)
            if _sha256(target) != file.sha256:
                raise CheckpointError(
                    f"{file.path} of step {manifest.step} in {self.store.describe()} differs from the hash it was "
                    "saved with: delete this step's folder to resume from the checkpoint before it"
                )

    def prune(self, keep_last: int) -> None:
        """Delete all but the newest checkpoints. A manifest goes first: a part is never taken for a whole."""
        for step in self.steps()[:-keep_last]:
            self._folder(step).delete(MANIFEST)
            self.store.delete_tree(self._name(step))

    def _folder(self, step: int) -> Store:
        return self.store / self._name(step)

    @staticmethod
    def _name(step: int) -> str:
        return f"step-{step:08d}"


def _together(work: Callable[[], T]) -> list[T]:
    """Do something on every worker, then fail on all if it failed on one: nobody is left waiting for the others."""
    outcome: T | RaylensError
    try:
        outcome = work()
    except RaylensError as error:
        outcome = error
    outcomes: list[T | RaylensError] = [outcome] * dist.get_world_size()
    dist.all_gather_object(outcomes, outcome)
    done: list[T] = []
    for one in outcomes:
        if isinstance(one, RaylensError):
            raise one
        done.append(one)
    return done


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
