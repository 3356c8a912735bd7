"""Samples that could not be used: each is written down, and too many of them stop the run.

``quarantine/`` in a run's folder holds Parquet files of `RECORDS`: ``index-*`` for what the manifest leaves out,
``position-*`` for what turned out to be unusable while it was read for training.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raylens.data.manifest import Manifest, read_parquet
from raylens.errors import QuarantineError
from raylens.storage import Store

__all__ = ["RECORDS", "Quarantined", "check_budget", "summary", "write_records", "write_rejected"]

SPARED = 10
"""Bad samples that never stop a run: a share says nothing about the first few batches."""
RECORDS = pa.schema(
    [
        ("source", pa.int32()),  # which data set of the configuration
        ("shard", pa.string()),
        ("key", pa.string()),
        ("offset", pa.int64()),  # of the image, as in the manifest
        ("reason", pa.string()),
        ("sample", pa.int64()),  # in manifest order; null for what the manifest leaves out, as are the next two
        ("position", pa.int64()),  # in the plan
        ("substitute", pa.int64()),  # the sample that filled the slot
    ]
)


@dataclass(frozen=True)
class Quarantined:
    """One sample that was read and could not be used, and what filled its slot; fields as in `RECORDS`."""

    source: int
    shard: str
    key: str
    offset: int
    reason: str
    sample: int
    position: int
    substitute: int


def write_records(store: Store, records: Sequence[Quarantined]) -> None:
    """Write records under ``quarantine/``; the same records again, after a restart, change nothing."""
    if not records:
        return
    rows = [asdict(record) for record in records]
    name = hashlib.sha256(repr(rows).encode()).hexdigest()[:12]
    _write(store, f"position-{records[0].position:012d}-{name}", pa.Table.from_pylist(rows, schema=RECORDS))


def write_rejected(store: Store, manifests: Iterable[Manifest]) -> None:
    """Write what manifests leave out, a file a data set."""
    for number, manifest in enumerate(manifests):
        if not manifest.rejected:
            continue
        parts = (
            rows.filter(rows["reason"].is_valid()) for rows in manifest.parts(["shard", "key", "offset", "reason"])
        )
        bad = pa.concat_tables(parts)
        paths = pa.array(manifest.table["path"].to_pylist()).take(bad["shard"].combine_chunks())
        table = bad.set_column(0, "shard", paths).add_column(0, "source", pa.repeat(pa.scalar(number), len(bad)))
        for name in RECORDS.names[len(table.column_names) :]:
            table = table.append_column(name, pa.nulls(len(bad), pa.int64()))
        _write(store, f"index-{number}", table.select(RECORDS.names).cast(RECORDS))


def _write(store: Store, name: str, table: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    store.write(f"quarantine/{name}.parquet", sink.getvalue().to_pybytes())


def summary(store: Store) -> str:
    """What a run could not use while it read, by reason, most frequent first; numbers within a reason are left out."""
    counts: Counter[str] = Counter()
    seen: set[int] = set()
    for info in store.list("quarantine"):
        if not info.path.startswith("quarantine/position-"):
            continue
        rows = read_parquet(store, info.path, ["position", "reason"])
        fresh = rows.filter(pc.invert(pc.is_in(rows["position"], pa.array(list(seen), pa.int64()))))
        seen.update(fresh["position"].to_pylist())
        counts.update(re.sub(r"\d+", "N", reason) for reason in fresh["reason"].to_pylist())
    return ", ".join(f"{count} {reason}" for reason, count in counts.most_common())


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
