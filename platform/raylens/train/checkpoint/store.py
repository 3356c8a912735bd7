"""Checkpoints in object storage: each worker uploads its part; a manifest of hashes, written last, completes them.

checkpoints/step-00000100/<attempt>/...     files of one attempt to save; an interrupted one leaves only these
checkpoints/step-00000100/checkpoint.json   step, position in the data, hash of every file
"""

import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from raylens.errors import AlreadyExistsError, CheckpointError
from raylens.evaluate import Goal, Metric, goal_of
from raylens.storage import Store
from raylens.train.checkpoint.cursor import Cursor
from raylens.train.checkpoint.files import SavedFile, overlapping, read_part, sha256_of, write_part
from raylens.train.checkpoint.snapshot import Snapshot

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CheckpointManifest", "Checkpoints"]

MANIFEST = "checkpoint.json"
COMPLETE = re.compile(rf"step-(\d+)/{re.escape(MANIFEST)}")
STEP = re.compile(r"step-(\d+)/")
FORMAT = 3


class _Format(BaseModel):
    """The format of a manifest, which is read first: the fields of another format are unknown."""

    format: int


class CheckpointManifest(BaseModel):
    """The manifest of a checkpoint; without it, the files of a step are leftovers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    step: int
    attempt: str
    workers: int
    zero_stage: int
    precision: str
    micro_batch: int
    """Number of pairs that passed through the towers at a time."""
    applied: int
    """Number of steps that were not skipped."""
    scaler: dict[str, float]
    """State of loss scaling in fp16."""
    cursor: Cursor
    metrics: dict[str, float] = {}
    """Metrics of the evaluation before the checkpoint, by which the best are kept."""
    goals: dict[str, Goal] = {}
    """Goal of each metric: whether a higher or a lower value is better."""
    files: list[SavedFile] = []

    @property
    def size(self) -> int:
        """Return the bytes of all files."""
        return sum(file.size for file in self.files)

    def evaluated(self, metrics: Sequence[Metric]) -> Self:
        """Return the manifest with the metrics of an evaluation."""
        values = {metric.name: metric.value for metric in metrics}
        return self.model_copy(update={"metrics": values, "goals": {metric.name: metric.goal for metric in metrics}})

    def metric(self, name: str) -> Metric | None:
        """Return a metric of the evaluation before the checkpoint, or None if it was not evaluated.

        Raises:
            CheckpointError: the goal of the metric is unknown.
        """
        if name not in self.metrics:
            return None
        goal = goal_of(name, self.goals)
        if goal is None:
            raise CheckpointError(
                f"{MANIFEST} of step {self.step} has {name} = {self.metrics[name]:g} without a goal: add "
                f'"goals": {{"{name}": "max"}} or "min" to it, or set '
                "checkpoint.keep_best=0"
            )
        return Metric(name, self.metrics[name], goal)


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, run: Store) -> None:
        self.store = run / "checkpoints"

    def steps(self) -> list[int]:
        """Return the steps with a complete checkpoint, ascending."""
        matches = (COMPLETE.fullmatch(info.path) for info in self.store.list())
        return sorted(int(match.group(1)) for match in matches if match)

    def newest(self) -> CheckpointManifest | None:
        """Return the manifest of the newest complete checkpoint, or None.

        Raises:
            CheckpointError: the manifest cannot be read.
        """
        steps = self.steps()
        return self.manifest(steps[-1]) if steps else None

    def manifest(self, step: int) -> CheckpointManifest:
        """Return the manifest of a complete checkpoint.

        Raises:
            CheckpointError: the manifest cannot be read, or has a format that this version does not know.
            NotFoundError: there is no complete checkpoint at this step.
        """
        text = self.folder(step).read(MANIFEST)
        place = f"{MANIFEST} of step {step} in {self.store.describe()}"
        try:
            saved = _Format.model_validate_json(text).format
            if saved != FORMAT:
                raise CheckpointError(
                    f"{place} has format {saved}, this version of raylens reads {FORMAT}: use the version that "
                    "wrote it, or start a new run with another name"
                )
            return CheckpointManifest.model_validate_json(text)
        except ValidationError as error:
            raise CheckpointError(
                f"{place} is damaged ({error.error_count()} fields differ): delete this step's folder to resume from "
                "the one before it"
            ) from None

    def upload(self, snapshot: Snapshot, step: int, attempt: str, worker: int) -> SavedFile:
        """Upload a worker's part; the checkpoint does not exist until it is published.

        Raises:
            StorageError: the store, or the temporary folder on this machine, cannot be written to.
        """
        with tempfile.TemporaryDirectory(prefix="raylens-save-") as folder:
            source, pieces = write_part(snapshot, Path(folder), worker)
            path = f"{attempt}/{source.name}"
            self.folder(step).upload(source, path)
            return SavedFile(
                path=path, size=source.stat().st_size, sha256=sha256_of(source), worker=worker, pieces=pieces
            )

    def publish(self, manifest: CheckpointManifest) -> None:
        """Make a checkpoint exist whose files have all been uploaded."""
        try:
            self.folder(manifest.step).write_once(MANIFEST, manifest.model_dump_json(indent=1).encode())
        except AlreadyExistsError:
            # A restart from an older checkpoint reached this step again. The existing checkpoint is complete and equal.
            self.folder(manifest.step).delete_tree(manifest.attempt)

    def pieces(
        self, manifest: CheckpointManifest, wanted: Sequence[tuple[str, int, int]], worker: int | None
    ) -> "tuple[dict[str, Tensor], dict[str, Tensor]]":
        """Return the pieces of parameters that a worker needs, and the state that belongs to it alone.

        If the number of workers has changed, each worker gets the state that belonged to the first one.

        Raises:
            CheckpointError: a file differs from its hash.
            NotFoundError: a file is missing.
        """
        owner = worker if worker is not None and manifest.workers > worker else 0
        files = {file.path: file for file in overlapping(manifest.files, wanted)}
        files |= {file.path: file for file in manifest.files if file.worker == owner}
        tensors: dict[str, Tensor] = {}
        local: dict[str, Tensor] = {}
        for file, part in self.parts(manifest, list(files.values())):
            pieces, own = read_part(part)
            tensors |= pieces
            local = own if file.worker == owner else local
        return tensors, local

    def parts(self, manifest: CheckpointManifest, files: Sequence[SavedFile]) -> Iterator[tuple[SavedFile, Path]]:
        """Yield files of a checkpoint, downloaded one after the other, verified by hash, and deleted afterwards.

        Raises:
            CheckpointError: a file differs from its hash.
            NotFoundError: a file is missing.
        """
        for file in files:
            with tempfile.TemporaryDirectory(prefix="raylens-load-") as folder:
                target = Path(folder) / Path(file.path).name
                self.folder(manifest.step).download(file.path, target)
                if sha256_of(target) != file.sha256:
                    raise CheckpointError(
                        f"{file.path} of step {manifest.step} in {self.store.describe()} differs from the hash it was "
                        "saved with: delete this step's folder to resume from the checkpoint before it"
                    )
                yield file, target

    def delete(self, step: int) -> None:
        """Delete a checkpoint, its manifest first: an incomplete checkpoint is never taken for a complete one."""
        self.folder(step).delete(MANIFEST)
        self.store.delete_tree(_name(step))

    def leftovers(self) -> dict[str, int]:
        """Return the files of interrupted attempts, which belong to no complete checkpoint, with the step of each."""
        named = set()
        for step in self.steps():
            named |= {
                f"{_name(step)}/{path}" for path in (MANIFEST, *(file.path for file in self.manifest(step).files))
            }
        matches = ((info.path, STEP.match(info.path)) for info in self.store.list())
        return {path: int(match.group(1)) for path, match in matches if match and path not in named}

    def folder(self, step: int) -> Store:
        """Return the folder of a step's checkpoint."""
        return self.store / _name(step)


def _name(step: int) -> str:
    return f"step-{step:08d}"
