"""Data sets without training: their manifests, from the cache or indexed first, plans and samples."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from pyarrow import Table

from raylens.cluster import session
from raylens.config import RunConfig, SourceConfig
from raylens.data import Manifest, Plan, Source, build_plan, fingerprint, manifest_for, open_reader, permute, ray_map
from raylens.errors import DataError
from raylens.storage import Store, open_store
from raylens.train.run import RUN_SETTINGS, run_store
from raylens.train.runs import read_metrics
from raylens.workloads.lines import Lines

__all__ = [
    "Cluster",
    "Forecast",
    "cached_manifests",
    "compare_with_run",
    "forecast",
    "manifests_for",
    "plan_for",
    "sample_pairs",
    "steps_of_run",
]

ProgressCallback = Callable[[int, int], None]


@dataclass(frozen=True)
class Cluster:
    """The cluster on which to index if that is needed; see `raylens.cluster.session`."""

    address: str | None = None
    num_cpus: int | None = None


def manifests_for(
    sources: Sequence[SourceConfig], cache: Store, cluster: Cluster, progress: ProgressCallback
) -> list[Manifest]:
    """Return the manifests of data sets; Ray starts only if a large one must be made.

    Raises:
        ManifestError: there are no shards, or none is usable.
        StorageError: a store does not answer.
    """
    cached = cached_manifests(sources, cache)
    if cached is not None:
        return cached
    with ExitStack() as stack:

        def apply(items: list[dict[str, Any]], function: Callable[[dict[str, Any]], Table]) -> Iterator[Table]:
            stack.enter_context(session(cluster.address, cluster.num_cpus, say=Lines().say))
            yield from ray_map(items, function)

        return [manifest_for(source, cache, apply, progress) for source in sources]


def cached_manifests(sources: Sequence[SourceConfig], cache: Store) -> list[Manifest] | None:
    """Return the manifests of data sets if all of them exist, otherwise None; needs no Ray.

    Raises:
        NotFoundError, ManifestError: there are no shards.
        StorageError: a store does not answer.
    """
    cached = [_cached(source, cache) for source in sources]
    return [manifest for manifest in cached if manifest] if all(cached) else None


def _cached(config: SourceConfig, cache: Store) -> Manifest | None:
    source, shards = Source.open(config)
    return Manifest.load(cache / fingerprint(source, shards))


def plan_for(config: RunConfig, cluster: Cluster, progress: ProgressCallback) -> tuple[Plan, list[Manifest]]:
    """Return a run's plan and manifests, equal to those of training."""
    cache = open_store(config.storage) / "manifests"
    manifests = manifests_for(config.data.train, cache, cluster, progress)
    return build_plan(config, manifests), manifests


def sample_pairs(manifest: Manifest, count: int, seed: int = 0) -> list[tuple[bytes, str]]:
    """Return images and first captions of samples from all over a data set; the same ones for the same seed."""
    keys = np.full(min(count, len(manifest)), seed, dtype=np.uint64)
    chosen = np.sort(permute(np.arange(len(keys)), len(manifest), keys))
    reader = open_reader(manifest.home)
    return [(pair.image, pair.captions[0]) for request in reader.requests(chosen) for _, pair in reader.read(request)]


def compare_with_run(config: RunConfig, hashes: Sequence[str]) -> int:
    """Compare the plan's hashes with those that a run recorded, and return how many steps could be compared.

    Raises:
        DataError: a step had other samples than the plan says; the message names the first.
    """
    recorded = dict(_sample_hashes(read_metrics(run_store(config))))
    for step, digest in sorted(recorded.items()):
        if step <= len(hashes) and digest != hashes[step - 1]:
            raise DataError(
                f"step {step} of run {config.name!r} had samples with hash {digest}, the plan has {hashes[step - 1]}: "
                "the run's settings or its data are not these"
            )
    return sum(step <= len(hashes) for step in recorded)


def steps_of_run(config: RunConfig) -> int:
    """Return the last step in the run's metrics; 0 if it has not begun.

    Raises:
        ConfigError: the run exists with other settings.
    """
    RUN_SETTINGS.check(run_store(config), config)
    return max((step for step, _ in _sample_hashes(read_metrics(run_store(config)))), default=0)


def _sample_hashes(records: Iterable[dict[str, object]]) -> Iterable[tuple[int, str]]:
    for record in records:
        words = record.get("sample_hashes")
        if isinstance(words, list):
            last = int(str(record["step"]))
            yield from zip(range(last - len(words) + 1, last + 1), map(str, words), strict=True)


@dataclass(frozen=True)
class Forecast:
    """The estimated cost of reading an epoch, from a sample of blocks."""

    requests: int
    bytes: int
    requests_per_block: float
    bytes_per_request: float


def forecast(plan: Plan, manifests: Sequence[Manifest], blocks: int = 24) -> Forecast:
    """Estimate requests and bytes of one epoch from blocks that are spread over it."""
    readers = [open_reader(manifest.home) for manifest in manifests]
    last = plan.block_of(plan.samples - 1)
    chosen = np.unique(np.linspace(0, last, min(blocks, last + 1)).astype(int)).tolist()
    requests = size = positions = 0
    for block in chosen:
        start, stop = plan.block_span(block)
        located = plan.locate(np.arange(start, stop))
        positions += stop - start
        for number, reader in enumerate(readers):
            for request in reader.requests(np.unique(located.sample[located.source == number])):
                lengths = reader.request_sizes(request)
                requests, size = requests + len(lengths), size + sum(lengths)
    scale = plan.samples / positions
    return Forecast(round(requests * scale), round(size * scale), requests / len(chosen), size / max(1, requests))
