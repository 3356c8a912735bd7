"""The specification of a training worker, which the driver sends to it."""

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
    """Everything that a worker needs to know; instances are pickled."""

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
        """Return the tokenizer of the run."""
        return Tokenizer.from_json(self.tokenizer_json)

    def cursor(self, step: int) -> Cursor:
        """Return the position in the data after a step."""
        return Cursor.at(step, self.plan, self.config.global_batch)


def check_fits(spec: WorkerSpec, manifest: CheckpointManifest) -> None:
    """Refuse a checkpoint from which this run cannot continue; workers and ZeRO stage may differ.

    Raises:
        CursorError: the checkpoint belongs to other data or another order.
        CheckpointError: the checkpoint was computed in another precision.
    """
    manifest.cursor.check(spec.cursor(manifest.step))
    if manifest.precision != spec.config.precision:
        raise CheckpointError(
            f"precision: the checkpoint at step {manifest.step} has {manifest.precision}, this run has "
            f"{spec.config.precision}: resume with --set precision={manifest.precision}, or start a new run with "
            "another name"
        )
