"""A run that continues from the state of another with other settings, as population-based training needs."""

import math
import tempfile
from pathlib import Path

from torch import Tensor

from raylens.config import RunConfig
from raylens.storage import Store
from raylens.train.checkpoint.files import SavedFile, read_part, sha256_of, write_part
from raylens.train.checkpoint.fragments import AVERAGE, WEIGHT, parse_key
from raylens.train.checkpoint.snapshot import Snapshot
from raylens.train.checkpoint.store import Checkpoints
from raylens.train.run.data_lock import NAME as DATA
from raylens.train.runs.jsonl import EVALUATIONS, METRICS, json_line, read_records

__all__ = ["fork", "scale_shift"]

ATTEMPT = "fork"
LOG_SCALE = "logit_scale"


def scale_shift(before: RunConfig, after: RunConfig) -> float:
    """Return what to add to the logarithm of the logit scale when the temperature of a forked run changes.

    A learned temperature is scaled by the ratio of the two settings and learned from there; a fixed one becomes the new
    setting.
    """
    return math.log(after.objective.initial_scale) - math.log(before.objective.initial_scale)


def fork(source: Store, step: int, target: Store, *, shift: float = 0.0) -> None:
    """Copy a complete checkpoint of one run into another, which then resumes from it.

    Args:
        source: the folder of the existing run.
        step: the step of a complete checkpoint there.
        target: the folder of the new run; an existing fork is left unchanged.
        shift: the result of `scale_shift`.

    Raises:
        NotFoundError: there is no such checkpoint.
        CheckpointError: the checkpoint is damaged.
    """
    old, new = Checkpoints(source), Checkpoints(target)
    if step in new.steps():
        return
    manifest = old.manifest(step)
    files = [_copy(part, file, new.folder(step), shift) for file, part in old.parts(manifest, manifest.files)]
    for name in ("tokenizer.json", DATA):
        target.write(name, source.read(name))
    for name in (METRICS, EVALUATIONS):
        rows = [row for row in read_records(source, name) if row["step"] <= step]
        target.write(name, b"".join(map(json_line, rows)))
    new.publish(manifest.model_copy(update={"attempt": ATTEMPT, "files": files, "metrics": {}, "goals": {}}))


def _copy(part: Path, file: SavedFile, folder: Store, shift: float) -> SavedFile:
    pieces, local = read_part(part)
    snapshot = Snapshot({key: _shifted(key, piece, shift) for key, piece in pieces.items()}, local)
    with tempfile.TemporaryDirectory(prefix="raylens-fork-") as place:
        path, spans = write_part(snapshot, Path(place), file.worker)
        name = f"{ATTEMPT}/{path.name}"
        folder.upload(path, name)
        return file.model_copy(
            update={"path": name, "size": path.stat().st_size, "sha256": sha256_of(path), "pieces": spans}
        )


def _shifted(key: str, piece: Tensor, shift: float) -> Tensor:
    name, _, kind = parse_key(key)
    return piece + shift if name.endswith(LOG_SCALE) and kind in (WEIGHT, AVERAGE) else piece
