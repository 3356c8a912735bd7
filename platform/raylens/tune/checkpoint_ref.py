"""What Ray Tune keeps for a checkpoint: where raylens' own one is."""

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
    """A complete checkpoint of a run of the sweep."""

    label: str
    """Name of the trial."""
    run: str
    step: int
    samples: int
    """Seen by then."""
    values: Values
    """That the trial had."""

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """From what Ray Tune hands to a trial that begins again; None if there was nothing to point to."""
        fields = json.loads((folder / FILE).read_text())
        return None if fields is None else cls(**fields)

    @staticmethod
    def write(ref: "CheckpointRef | None", folder: Path) -> None:
        """For Ray Tune to keep."""
        (folder / FILE).write_text(json.dumps(None if ref is None else asdict(ref)))

    @classmethod
    def kept(cls, run: Store) -> Self | None:
        """What a run went on from, if it is a copy."""
        try:
            return cls(**json.loads(run.read(COPIED)))
        except NotFoundError:
            return None

    def keep(self, run: Store) -> None:
        """Write down what a run goes on from."""
        run.write(COPIED, json.dumps(asdict(self)).encode())

    def fork_digest(self, values: Values) -> str:
        """Names the copy with other values: the same again when it is made again."""
        text = json.dumps([self.run, self.step, values], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
