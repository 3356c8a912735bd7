"""A run that goes on from the state of another, with other settings: what population-based training copies."""

import math
import tempfile
from pathlib import Path

from torch import Tensor

from raylens.config import RunConfig
from raylens.storage import Store
from raylens.train.checkpoint.files import SavedFile, read_part, sha256_of, write_part
from raylens.train.checkpoint.fragments import WEIGHT, named
from raylens.train.checkpoint.snapshot import Snapshot
from raylens.train.checkpoint.store import Checkpoints
from raylens.train.engine.ema import AVERAGE
from raylens.train.run.data_lock import NAME as DATA
from raylens.train.runs.jsonl import EVALUATIONS, METRICS, line_of, read_records

__all__ = ["fork", "scale_shift"]

ATTEMPT = "fork"
LOG_SCALE = "logit_scale"


def scale_shift(before: RunConfig, after: RunConfig) -> float:
    """What to add to the logarithm of the logit scale when a run's temperature is changed on the way.

    A learned temperature is moved by the factor between the two settings and learned on from there; a fixed one is then
    what the new setting says.
    """
    return math.log(after.objective.initial_scale) - math.log(before.objective.initial_scale)


def fork(source: Store, step: int, target: Store, *, shift: float = 0.0) -> None:
    """Make a complete checkpoint of one run the first one of another, which then resumes from it.

    Args:
        source: folder of a run.
        step: of a complete checkpoint there.
        target: folder of the new run; a fork that was made before is left as it is.
        shift: see `scale_shift`.

    Raises:
        NotFoundError: there is no such checkpoint.
        CheckpointError: it is damaged.
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
        target.write(name, b"".join(map(line_of, rows)))
    new.publish(manifest.model_copy(update={"attempt": ATTEMPT, "files": files, "metrics": {}, "goals": {}}))


def _copy(part: Path, file: SavedFile, folder: Store, shift: float) -> SavedFile:
    pieces, own = read_part(part)
    snapshot = Snapshot({key: _shifted(key, piece, shift) for key, piece in pieces.items()}, own)
    with tempfile.TemporaryDirectory(prefix="raylens-fork-") as place:
        path, spans = write_part(snapshot, Path(place), file.worker)
        name = f"{ATTEMPT}/{path.name}"
        folder.upload(path, name)
        return file.model_copy(
            update={"path": name, "size": path.stat().st_size, "sha256": sha256_of(path), "pieces": spans}
        )


def _shifted(key: str, piece: Tensor, shift: float) -> Tensor:
    name, _, kind = named(key)
    return piece + shift if name.endswith(LOG_SCALE) and kind in (WEIGHT, AVERAGE) else piece
