"""What a manifest and a plan of 100 million samples take: bytes, memory, seconds. Not against a peer: has anybody one?

    python -m benchmarks.planner_scale [SAMPLES]

Writes a synthetic manifest (shards of 10,000 samples, records as of 512-pixel JPEGs) to a temporary folder: about 3 GB
for 100 million samples. Each measurement is a process of its own. Prints one JSON object a claim.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raylens.data import Manifest, Plan, Source
from raylens.data.formats import Columns, Kind
from raylens.data.manifest import SCHEMA, SHARDS, digest_of, part_name
from raylens.data.order import FixedChunkOrder, RowGroupOrder
from raylens.data.reader import open_reader
from raylens.data.sample_index import RECORD
from raylens.data.verify import Topology, verify
from raylens.storage import open_store

PER_SHARD = 10_000
SHARDS_PER_PART = 16
BATCH = 32_768
IMAGE, CAPTION = 55_000, 60


def write_manifest(home: Path, samples: int) -> dict[str, float]:
    """The files of `raylens.data.manifest`, with one part for real and the rest of that size."""
    store, shards, began = open_store(home), samples // PER_SHARD, time.perf_counter()
    rows = {
        "shard": range(shards),
        "part": [number // SHARDS_PER_PART for number in range(shards)],
        "path": [f"{number:06d}.tar" for number in range(shards)],
        "size": [PER_SHARD * 57_000] * shards,
        "version": [f'"{number:032x}"' for number in range(shards)],
        "samples": [PER_SHARD] * shards,
        "rejected": [0] * shards,
        "digest": [f"{number:064x}" for number in range(shards)],
        "reasons": ["{}"] * shards,
    }
    table = pa.table({name: rows.get(name, [None] * shards) for name in SHARDS.names}, schema=SHARDS)
    source = Source(str(home / "shards"), "tar", Columns(None, None), str(home / "shards"))
    manifest = Manifest(store.uri, source, table, digest_of(table))
    part = write_part(home / part_name(0), PER_SHARD * SHARDS_PER_PART)
    with (home / "samples.bin").open("wb") as stream:
        for _ in range(shards):
            stream.write(places(PER_SHARD).tobytes())
    (home / "texts.bin").touch()
    manifest.save()
    return {
        "seconds": time.perf_counter() - began,
        "index_bytes_per_sample": (home / "samples.bin").stat().st_size / samples,
        "rows_bytes_per_sample": part / (PER_SHARD * SHARDS_PER_PART),
        "shards_bytes": (home / "shards.parquet").stat().st_size,
    }


def places(count: int) -> "np.ndarray[tuple[int], np.dtype[np.void]]":
    rng = np.random.default_rng(0)
    records = np.zeros(count, dtype=RECORD)
    records["length"] = rng.normal(IMAGE, 9000, count).clip(5000)
    records["caption_length"] = CAPTION
    records["caption_delta"] = records["length"].astype(np.int64) + 1024
    records["offset"] = np.concatenate([[512], np.cumsum(records["length"].astype(np.int64) + 2560)[:-1] + 512])
    records["check"] = rng.integers(0, 2**63, count)
    return records


def write_part(path: Path, count: int) -> int:
    rng, records = np.random.default_rng(1), places(count)
    columns = {
        "shard": np.arange(count) // PER_SHARD,
        "key": [f"{number:012d}" for number in range(count)],
        "offset": records["offset"],
        "image_length": records["length"],
        "caption_delta": records["caption_delta"],
        "caption_extent": rng.integers(20, 200, count),
        "kind": np.full(count, int(Kind.TEXT)),
        "image_sha256": [rng.bytes(32) for _ in range(count)],
        "caption_hash": [rng.bytes(8) for _ in range(count)],
        "caption_count": np.ones(count),
        "caption_length": rng.integers(20, 200, count),
        "width": rng.integers(200, 2000, count),
        "height": rng.integers(200, 2000, count),
    }
    arrays = [pa.array(columns.get(field.name, [None] * count), from_pandas=True).cast(field.type) for field in SCHEMA]
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_arrays(arrays, schema=SCHEMA), path, compression="zstd")
    return path.stat().st_size


def resident_mib() -> float:
    """This process's own memory; pages of mapped files, which the system may drop, are not counted."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def timed(function: Callable[[], object], times: int = 1) -> float:
    began = time.perf_counter()
    for _ in range(times):
        function()
    return (time.perf_counter() - began) / times


def plan_of(home: Path, samples: int, kind: str) -> Plan:
    manifest = Manifest.load(open_store(home))
    assert manifest is not None
    common: dict[str, Any] = {
        "samples": samples,
        "manifest": manifest.digest,
        "seed": 0,
        "chunk_size": 32,
        "epoch_size": samples,
    }
    if kind == "given":  # row groups of 100
        return Plan((RowGroupOrder(**common, chunks_per_block=10, bounds=np.arange(0, samples + 1, 100)),))
    return Plan((FixedChunkOrder(**common, chunks_per_block=32),))


def measure_plan(home: Path, samples: int, kind: str) -> dict[str, float]:
    before = resident_mib()
    load = timed(lambda: plan_of(home, samples, kind))
    plan = plan_of(home, samples, kind)
    rng = np.random.default_rng(0)
    starts = (rng.integers(0, samples // BATCH * 3, 20) * BATCH).tolist()
    plan.locate(np.arange(BATCH))  # the first look into an epoch of given runs makes its table
    locate = timed(lambda: [plan.locate(np.arange(start, start + BATCH)) for start in starts]) / len(starts)
    return {"load_seconds": load, "locate_batch_ms": locate * 1e3, "mib": resident_mib() - before}


def measure_requests(home: Path, samples: int, _: str) -> dict[str, float]:
    plan, before = plan_of(home, samples, "even"), resident_mib()
    began = time.perf_counter()
    reader = open_reader(str(home))
    opening = time.perf_counter() - began
    sizes, blocks = [], 200
    began = time.perf_counter()
    for block in range(blocks):
        located = plan.locate(np.arange(*plan.block_span(block)))
        for request in reader.requests(np.unique(located.sample)):
            sizes += reader.request_sizes(request)
    return {
        "open_seconds": opening,
        "block_ms": (time.perf_counter() - began) / blocks * 1e3,
        "mib": resident_mib() - before,
        "requests_per_block": len(sizes) / blocks,
        "request_mb": sum(sizes) / len(sizes) / 1e6,
    }


def measure_verify(home: Path, samples: int, _: str) -> dict[str, float]:
    plan, before = plan_of(home, samples, "even"), resident_mib()
    steps = -(-samples // BATCH)
    topologies = [Topology(((0, 4),)), Topology(((0, 8), (steps // 2, 2)))]
    seconds = timed(lambda: verify(plan, BATCH, topologies, steps))
    return {"seconds": seconds, "mib_after": resident_mib() - before}


MEASURES = {"plan": measure_plan, "requests": measure_requests, "verify": measure_verify}


def apart(what: str, home: Path, samples: int, kind: str = "even") -> dict[str, float]:
    command = [sys.executable, __file__, what, str(home), str(samples), kind]
    result: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return result


def claim(name: str, value: float, unit: str, **more: object) -> None:
    rounded = {key: round(x, 3) if isinstance(x, float) else x for key, x in more.items()}
    print(
        json.dumps({"claim": name, "value": round(value, 3), "unit": unit, "peer": "", "wanted": "stated", **rounded})
    )
    sys.stdout.flush()


def main(samples: int) -> None:
    with tempfile.TemporaryDirectory(prefix="raylens-scale-") as folder:
        home = Path(folder).resolve()
        written = write_manifest(home, samples)
        total = written["index_bytes_per_sample"] + written["rows_bytes_per_sample"]
        claim("manifest_bytes_per_sample", total, "B", samples=samples, **written)
        for kind in ("even", "given"):
            found = apart("plan", home, samples, kind)
            claim(f"plan_{kind}_memory", found["mib"], "MiB", samples=samples, **found)
        found = apart("requests", home, samples)
        claim("task_memory", found["mib"], "MiB", samples=samples, **found)
        found = apart("verify", home, samples)
        claim("verify_epoch_seconds", found["seconds"], "s", samples=samples, topologies=2, **found)


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in MEASURES:
        print(json.dumps(MEASURES[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])))
        os._exit(0)
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000_000)
