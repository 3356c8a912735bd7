"""The position in the data at which a checkpoint was saved, and whether a run can continue from it."""

from typing import Self

from pydantic import BaseModel, ConfigDict

from raylens.data import Plan
from raylens.errors import CursorError

__all__ = ["Cursor"]

REMEDY = {
    "manifests": "the shards changed: start a new run with another name, or restore the old shards",
    "plan_version": "this raylens orders samples differently; resume with the version that wrote the checkpoint",
}


class Cursor(BaseModel):
    """The number of consumed samples, and everything that decides which sample is at a position.

    The number of workers is not part of it: any number may continue.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    position: int
    global_batch: int
    manifests: tuple[str, ...]
    """Digest of the manifest of each data set."""
    samples: tuple[int, ...]
    epoch_sizes: tuple[int, ...]
    shares: tuple[int, ...]
    seed: int
    chunk_size: int
    chunks_per_block: tuple[int, ...]
    plan_version: int = Plan.VERSION

    @classmethod
    def at(cls, step: int, plan: Plan, global_batch: int) -> Self:
        """Return the cursor after ``step`` steps."""
        return cls(
            position=step * global_batch,
            global_batch=global_batch,
            manifests=tuple(order.manifest for order in plan.orders),
            samples=tuple(order.samples for order in plan.orders),
            epoch_sizes=tuple(order.epoch_size for order in plan.orders),
            shares=plan.shares,
            seed=plan.seed,
            chunk_size=plan.orders[0].chunk_size,
            chunks_per_block=tuple(order.chunks_per_block for order in plan.orders),
        )

    def check(self, current: "Cursor") -> None:
        """Refuse to continue with other data or in another order.

        Raises:
            CursorError: the data or its order differs; names the field, both values and the fix.
        """
        for field, now in current.model_dump(exclude={"position"}).items():
            saved = getattr(self, field)
            if saved != now:
                remedy = REMEDY.get(field, "resume with the saved value, or start a new run with another name")
                raise CursorError(f"{field}: the checkpoint has {_short(saved)}, this run has {_short(now)}: {remedy}")


def _short(value: object) -> str:
    if isinstance(value, tuple):
        return _short(value[0]) if len(value) == 1 else f"[{', '.join(_short(item) for item in value)}]"
    text = str(value)
    return text if len(text) <= 16 else f"{text[:12]}..."
