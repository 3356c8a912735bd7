"""Samples that cannot be used: each is recorded, and too many of them stop the run.

``quarantine/`` in a run's folder holds Parquet files of `RECORDS`: ``index-*`` for samples that the manifest leaves
out, ``position-*`` for samples that proved unusable when they were read for training.
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

ALWAYS_TOLERATED = 10
"""Bad samples that never stop a run: a share is meaningless for the first few batches."""
RECORDS = pa.schema(
    [
        ("source", pa.int32()),  # index of the data set in the configuration
        ("shard", pa.string()),
        ("key", pa.string()),
        ("offset", pa.int64()),  # of the image, as in the manifest
        ("reason", pa.string()),
        ("sample", pa.int64()),  # in manifest order; null for samples that the manifest leaves out, as are the next two
        ("position", pa.int64()),  # in the plan
        ("substitute", pa.int64()),  # the sample that filled the slot
    ]
)


@dataclass(frozen=True)
class Quarantined:
    """A sample that was read and could not be used, with its substitute; fields as in `RECORDS`."""

    source: int
    shard: str
    key: str
    offset: int
    reason: str
    sample: int
    position: int
    substitute: int


def write_records(store: Store, records: Sequence[Quarantined]) -> None:
    """Write records under ``quarantine/``; writing the same records again after a restart has no effect."""
    if not records:
        return
    rows = [asdict(record) for record in records]
    name = hashlib.sha256(repr(rows).encode()).hexdigest()[:12]
    _write(store, f"position-{records[0].position:012d}-{name}", pa.Table.from_pylist(rows, schema=RECORDS))


def write_rejected(store: Store, manifests: Iterable[Manifest]) -> None:
    """Write the samples that manifests leave out, one file for each data set."""
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
    """Count the unusable samples of a run by reason, most frequent first; numbers within a reason are masked."""
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
    """Raise an error if too many samples are unusable.

    Raises:
        QuarantineError: more than `ALWAYS_TOLERATED` samples, and more than the share ``budget``, are bad.
    """
    if bad > ALWAYS_TOLERATED and bad > budget * read:
        raise QuarantineError(
            f"{bad} of {read} samples ({bad / read:.1%}) could not be used, more than data.quarantine_budget = "
            f"{budget:.1%}: {where}. Repair the shards, or raise the budget if this loss is acceptable"
        )
