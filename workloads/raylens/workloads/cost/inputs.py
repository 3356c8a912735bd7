"""The inputs of a cost, with their origin: the speed of training and decoding, the size of the data."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from raylens.config import RunConfig
from raylens.data import Manifest, build_plan
from raylens.errors import ConfigError, DataError, StorageError, TrainingError
from raylens.estimate import estimate
from raylens.report import finite
from raylens.storage import open_store
from raylens.train.runs import RunFiles
from raylens.workloads.cost.terms import Data, Rate
from raylens.workloads.data_sets import cached_manifests, forecast
from raylens.workloads.pages.runs import open_run

__all__ = ["CostOptions", "data_of", "rate_of"]

CORE_PAIRS, PAIR_BYTES = 700.0, 57_000.0
"""Default pairs a second and core, and bytes of a pair, for images of 512 pixels as in docs/benchmarks.md."""
WARM = 2
"""Number of first records of a run that measure its start rather than its training."""
PAGE = 1000


@dataclass(frozen=True)
class CostOptions:
    """The options of the command line; None for an option that was not set."""

    pairs_per_second: float | None = None
    from_run: str | None = None
    pairs_per_core: float | None = None
    pairs: int | None = None
    bytes_per_pair: float | None = None


def rate_of(config: RunConfig, options: CostOptions) -> Rate:
    """Return the run's speed: from an option, from a measured run, or else as `raylens estimate` estimates it.

    Raises:
        ConfigError: nothing says it, or two things do.
        TrainingError: the run has not been measured.
    """
    if options.pairs_per_second is not None and options.from_run is not None:
        raise ConfigError("--pairs-per-second and --from-run: give one of them")
    if options.from_run is not None:
        rate = _measured(config, open_run(options.from_run))
    elif options.pairs_per_second is not None:
        rate = Rate(options.pairs_per_second, "given", CORE_PAIRS, "assumed", _core_text())
    else:
        rate = _counted(config)
    if options.pairs_per_core is None:
        return rate
    assumed = rate.assumed.replace(_core_text(), "").strip("; ")
    return Rate(rate.pairs_per_second, rate.how, options.pairs_per_core, "given", assumed)


def _measured(config: RunConfig, run: RunFiles) -> Rate:
    records = [record for record in run.records[WARM:] if record.get("first_batch_seconds") is None]
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
    workers, how = config.resources.workers, f"measured in {run.name}: the median of {len(speeds)} records"
    if then == workers:
        return Rate(speed, how, per_core, core_how, lacking)
    assumed = f"that {run.name} had {workers} workers"  # its configuration does not tell how many
    if then is not None:
        how = f"measured in {run.name} with {then} workers, {speed:,.0f}; in proportion for {workers}"
        speed, assumed = speed / then * workers, f"that {workers} workers are as fast each as {then}"
    return Rate(speed, how, per_core, core_how, f"{assumed}; {lacking}" if lacking else assumed)


def _numbers(records: Sequence[Any], key: str) -> list[float]:
    values = (finite(record.get(key)) for record in records)
    return [number for number in values if number is not None and number > 0]


def _workers_of(run: RunFiles) -> int | None:
    """Return the number of workers in a run's configuration; None if it may change during the run."""
    resources = run.config.get("resources")
    if not isinstance(resources, dict) or resources.get("min_workers") not in (None, resources.get("workers")):
        return None
    workers = resources.get("workers")
    return workers if isinstance(workers, int) else None


def _counted(config: RunConfig) -> Rate:
    if not config.resources.gpus_per_worker:
        raise ConfigError(
            "how fast CPUs train cannot be counted: give --pairs-per-second X, or --from-run URI of a run of this kind"
        )
    estimated = estimate(config)
    if not estimated.fits:
        raise ConfigError(
            "not even one pair fits into the memory that is assumed of a GPU: see `raylens estimate`, and give "
            "--pairs-per-second X for other GPUs"
        )
    how = "counted by `raylens estimate` for H100s at 40% of their rate: assumed, not measured"
    assumed = (
        "speed of training (`raylens estimate` with --mfu and the GPU's figures gives another for --pairs-per-second)"
    )
    return Rate(estimated.pairs_per_second, how, CORE_PAIRS, "assumed", f"{assumed}; {_core_text()}")


def _core_text() -> str:
    return f"{CORE_PAIRS:,.0f} pairs/s that a core decodes (512-pixel JPEGs; --pairs-per-core)"


def data_of(config: RunConfig, options: CostOptions) -> Data:
    """Return how much the run reads: from its manifests if they exist, or else from the options.

    Raises:
        ConfigError: the length is in epochs, and the number of pairs of an epoch is unknown.
    """
    manifests = None if options.pairs is not None else _manifests(config)
    if manifests is not None:
        return _indexed(config, manifests, options)
    pairs = options.pairs
    if pairs is None:
        if config.length.samples_seen is None:
            raise ConfigError(
                f"length.epochs = {config.length.epochs}, and how many pairs an epoch has is not known: "
                f"give --pairs N, or index the data first (raylens data stats {config.data.train[0].uri} --manifests "
                f"{open_store(config.storage).describe()}/manifests)"
            )
        pairs = config.length.samples_seen
    size = options.bytes_per_pair or PAIR_BYTES
    assumed = "" if options.bytes_per_pair else f"{PAIR_BYTES:,.0f} bytes a pair (512-pixel JPEGs; --bytes-per-pair)"
    how = "given" if options.bytes_per_pair else "assumed"
    # One ranged request for each chunk of neighbouring samples, as tars are read.
    return Data(pairs, size, 1 / config.data.chunk_size, how, max(1, pairs // (10_000 * PAGE)), assumed)


def _manifests(config: RunConfig) -> list[Manifest] | None:
    try:
        return cached_manifests(config.data.train, open_store(config.storage) / "manifests")
    except (StorageError, DataError):
        return None  # it does not exist yet, or this machine cannot read it: the options are used


def _indexed(config: RunConfig, manifests: Sequence[Manifest], options: CostOptions) -> Data:
    plan = build_plan(config, list(manifests))
    pairs = sum(order.epoch_size for order in plan.orders)
    reads = forecast(plan, manifests)
    size = options.bytes_per_pair or reads.bytes / plan.samples
    shards = sum(manifest.table.num_rows for manifest in manifests)
    return Data(pairs, size, reads.requests / plan.samples, "from the manifest", -(-shards // PAGE))
