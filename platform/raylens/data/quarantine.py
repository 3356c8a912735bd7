"""Samples that could not be used: each is written down, and too many of them stop the run."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from raylens.errors import QuarantineError
from raylens.storage import Store

__all__ = ["Quarantined", "check_budget", "write_records"]

SPARED = 10
"""Bad samples that never stop a run: a share says nothing about the first few batches."""


@dataclass(frozen=True)
class Quarantined:
    """One sample that was read and could not be used, and what filled its slot."""

    shard: str
    offset: int
    """Of the image file in its shard, in bytes."""
    sample: int
    """Number in manifest order."""
    position: int
    reason: str
    substitute: int


def write_records(store: Store, records: Sequence[Quarantined]) -> None:
    """Write records under ``quarantine/``; the same records again, after a restart, change nothing."""
    if not records:
        return
    lines = "".join(json.dumps(asdict(record)) + "\n" for record in records)
    name = hashlib.sha256(lines.encode()).hexdigest()[:12]
    store.write(f"quarantine/position-{records[0].position:012d}-{name}.jsonl", lines.encode())


def check_budget(bad: int, read: int, budget: float, where: str) -> None:
    """Stop when too much cannot be used.

    Raises:
        QuarantineError: more than ``SPARED`` samples and more than the share ``budget`` of those read are bad.
    """
    if bad > SPARED and bad > budget * read:
        raise QuarantineError(
            f"{bad} of {read} samples ({bad / read:.1%}) could not be used, over data.quarantine_budget = "
            f"{budget:.1%}: {where}. Mend the shards, or raise the budget if that much loss is acceptable"
        )
