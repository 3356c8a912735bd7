"""What a cost is computed from, with its origin: the speed of training and decoding, the size of the data."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from raylens.config import RunConfig
from raylens.data import Manifest
from raylens.data.build_plan import build_plan
from raylens.errors import ConfigError, DataError, StorageError, TrainingError
from raylens.estimate.step import budget
from raylens.report.numbers import finite
from raylens.storage import open_store
from raylens.train.runs.run_dir import RunFiles
from raylens.workloads.cost.terms import Data, Rate
from raylens.workloads.data_sets import cached_manifests, forecast
from raylens.workloads.pages.runs import open_run

__all__ = ["Given", "data_of", "rate_of"]

CORE_PAIRS, PAIR_BYTES = 700.0, 57_000.0
"""Images of 512 pixels, as docs/benchmarks.md and docs/streaming.md have them: a second and core, and bytes of one."""
WARM = 2
"""First records of a run, or of a start, that tell of starting rather than of training."""
PAGE = 1000


@dataclass(frozen=True)
class Given:
    """What was said on the command line; None where nothing was."""

    pairs_per_second: float | None = None
    from_run: str | None = None
    pairs_per_core: float | None = None
    pairs: int | None = None
    bytes_per_pair: float | None = None


def rate_of(config: RunConfig, given: Given) -> Rate:
    """How fast the run trains: as given, as a run was measured, or else as `raylens budget` counts at an assumed rate.

    Raises:
        ConfigError: nothing says it, or two things do.
        TrainingError: the run has not been measured.
    """
    if given.pairs_per_second is not None and given.from_run is not None:
        raise ConfigError("--pairs-per-second and --from-run: give one of them")
    if given.from_run is not None:
        rate = _measured(config, open_run(given.from_run))
    elif given.pairs_per_second is not None:
        rate = Rate(given.pairs_per_second, "given", CORE_PAIRS, "assumed", _core_text())
    else:
        rate = _counted(config)
    if given.pairs_per_core is None:
        return rate
    assumed = rate.assumed.replace(_core_text(), "").strip("; ")
    return Rate(rate.pairs_per_second, rate.how, given.pairs_per_core, "given", assumed)


def _measured(config: RunConfig, run: RunFiles) -> Rate:
    records = [one for one in run.records[WARM:] if one.get("first_batch_seconds") is None]
    speeds = _numbers(records, "samples_per_second")
    if not speeds:
        raise TrainingError(
            f"{run.place} has {len(run.records)} records, of which none tells a speed after its start: let it train on"
        )
    speed, then = statistics.median(speeds), _workers_of(run)
    cores = _numbers(records, "data_cores")
    busy = statistics.median(cores) if cores else 0.0
    per_core = speed / busy if busy > 0 else CORE_PAIRS
    core_how = f"measured in {run.name}" if busy > 0 else "assumed"
    lacking = "" if busy > 0 else _core_text()
    if then is None or then == config.scale.workers:
        return Rate(speed, f"measured in {run.name}: the median of {len(speeds)} records", per_core, core_how, lacking)
    scaled = f"measured in {run.name} with {then} workers, {speed:,.0f}; in proportion for {config.scale.workers}"
    assumed = "; ".join(
        one for one in (f"that {config.scale.workers} workers are as fast each as {then}", lacking) if one
    )
    return Rate(speed / then * config.scale.workers, scaled, per_core, core_how, assumed)


def _numbers(records: Sequence[Any], key: str) -> list[float]:
    found = (finite(one.get(key)) for one in records)
    return [number for number in found if number is not None and number > 0]


def _workers_of(run: RunFiles) -> int | None:
    """That its configuration names; of a run with a changing number, nobody can tell."""
    scale = run.config.get("scale")
    if not isinstance(scale, dict) or scale.get("min_workers") not in (None, scale.get("workers")):
        return None
    workers = scale.get("workers")
    return workers if isinstance(workers, int) else None


def _counted(config: RunConfig) -> Rate:
    if not config.scale.gpus_per_worker:
        raise ConfigError(
            "how fast CPUs train cannot be counted: give --pairs-per-second X, or --from-run URI of a run of this kind"
        )
    found = budget(config)
    if not found.fits:
        raise ConfigError(
            "not even one pair fits into the memory that is assumed of a GPU: see `raylens budget`, and give "
            "--pairs-per-second X for other GPUs"
        )
    how = "counted by `raylens budget` for H100s at 40% of their rate: assumed, not measured"
    assumed = (
        "speed of training (`raylens budget` with --mfu and the GPU's figures gives another for --pairs-per-second)"
    )
    return Rate(found.pairs_per_second, how, CORE_PAIRS, "assumed", f"{assumed}; {_core_text()}")


def _core_text() -> str:
    return f"{CORE_PAIRS:,.0f} pairs/s that a core decodes (512-pixel JPEGs; --pairs-per-core)"


def data_of(config: RunConfig, given: Given) -> Data:
    """How much the run reads: from its manifests where they are made, or else from what was said.

    Raises:
        ConfigError: the length is in epochs, and nothing says how many pairs one has.
    """
    manifests = None if given.pairs is not None else _manifests(config)
    if manifests is not None:
        return _indexed(config, manifests, given)
    pairs = given.pairs
    if pairs is None:
        if config.length.samples_seen is None:
            raise ConfigError(
                f"length.epochs = {config.length.epochs}, and how many pairs an epoch has is not known: "
                f"give --pairs N, or index the data first (raylens data stats {config.data.train[0].uri} --manifests "
                f"{open_store(config.storage).describe()}/manifests)"
            )
        pairs = config.length.samples_seen
    size = given.bytes_per_pair or PAIR_BYTES
    assumed = "" if given.bytes_per_pair else f"{PAIR_BYTES:,.0f} bytes a pair (512-pixel JPEGs; --bytes-per-pair)"
    how = "given" if given.bytes_per_pair else "assumed"
    # A ranged request for each run of neighbours, as tars are read.
    return Data(pairs, size, 1 / config.data.run_length, how, max(1, pairs // (10_000 * PAGE)), assumed)


def _manifests(config: RunConfig) -> list[Manifest] | None:
    try:
        return cached_manifests(config.data.train, open_store(config.storage) / "manifests")
    except (StorageError, DataError):
        return None  # not there yet, or out of this machine's reach: what was said must do


def _indexed(config: RunConfig, manifests: Sequence[Manifest], given: Given) -> Data:
    plan = build_plan(config, list(manifests))
    pairs = sum(order.epoch_size for order in plan.orders)
    found = forecast(plan, manifests)
    size = given.bytes_per_pair or found.bytes / plan.samples
    shards = sum(manifest.table.num_rows for manifest in manifests)
    return Data(pairs, size, found.requests / plan.samples, "from the manifest", -(-shards // PAGE))
