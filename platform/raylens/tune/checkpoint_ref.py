"""The reference to a checkpoint of raylens, which Ray Tune stores in place of a checkpoint."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from raylens.errors import NotFoundError
from raylens.storage import Store
from raylens.tune.space import Values

__all__ = ["CheckpointRef"]

FILE = "checkpoint_ref.json"
COPIED = "copied.json"


@dataclass(frozen=True)
class CheckpointRef:
    """A reference to a complete checkpoint of a run of the sweep."""

    label: str
    """Name of the trial that saved it."""
    run: str
    step: int
    samples: int
    """Samples seen at this step."""
    values: Values
    """Values of the searched keys that the trial had."""

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Read the reference from a folder of Ray Tune; None if the trial had saved no checkpoint."""
        fields = json.loads((folder / FILE).read_text())
        return None if fields is None else cls(**fields)

    @staticmethod
    def write(ref: "CheckpointRef | None", folder: Path) -> None:
        """Write the reference, or None, into a folder of Ray Tune."""
        (folder / FILE).write_text(json.dumps(None if ref is None else asdict(ref)))

    @classmethod
    def read_origin(cls, run: Store) -> Self | None:
        """Read the checkpoint from which a run was copied; None if the run is not a copy."""
        try:
            return cls(**json.loads(run.read(COPIED)))
        except NotFoundError:
            return None

    def write_origin(self, run: Store) -> None:
        """Record in a run the checkpoint from which it was copied."""
        run.write(COPIED, json.dumps(asdict(self)).encode())

    def fork_digest(self, values: Values) -> str:
        """Return a name for the copy with other values; the same copy always has the same name."""
        text = json.dumps([self.run, self.step, values], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
