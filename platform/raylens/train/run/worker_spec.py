"""What a training worker is told."""

from dataclasses import dataclass
from typing import Any

from raylens.config import RunConfig
from raylens.data import Plan
from raylens.errors import CheckpointError
from raylens.inputs import Preprocess, Tokenizer
from raylens.train.checkpoint.cursor import Cursor
from raylens.train.checkpoint.store import CheckpointManifest
from raylens.train.evaluation.eval_sets import EvalSets

__all__ = ["WorkerSpec", "check_fits"]


@dataclass(frozen=True)
class WorkerSpec:
    """Everything that a worker is told; travels by pickle."""

    config: RunConfig
    run_uri: str
    plan: Plan
    steps: int
    tokenizer_json: str
    preprocess: Preprocess
    channel: Any
    evaluation: EvalSets

    @property
    def tokenizer(self) -> Tokenizer:
        """Of the run."""
        return Tokenizer.from_json(self.tokenizer_json)

    def cursor(self, step: int) -> Cursor:
        """The place in the data after a step."""
        return Cursor.at(step, self.plan, self.config.global_batch)


def check_fits(spec: WorkerSpec, manifest: CheckpointManifest) -> None:
    """Refuse a checkpoint that this run cannot go on from. The number of workers and the stage of ZeRO may differ.

    Raises:
        CursorError: it stands in other data or another order.
        CheckpointError: it was computed in another precision.
    """
    manifest.cursor.check(spec.cursor(manifest.step))
    if manifest.precision != spec.config.precision:
        raise CheckpointError(
            f"precision: the checkpoint at step {manifest.step} has {manifest.precision}, this run has "
            f"{spec.config.precision}: resume with --set precision={manifest.precision}, or start a new run with "
            "another name"
        )
