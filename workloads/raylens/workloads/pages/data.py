"""The lines that the commands ``raylens data`` print."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from raylens.cluster import session
from raylens.config import RunConfig, SourceConfig, validated
from raylens.data import ExplainedSample, Manifest, Topology, ray_map, repack, split_pattern
from raylens.data.explain import explain
from raylens.data.verify import verify
from raylens.errors import ConfigError
from raylens.messages import warning, with_severity
from raylens.report import bytes_text, count_text
from raylens.storage import open_store
from raylens.workloads.data_sets import (
    Cluster,
    ProgressCallback,
    compare_with_run,
    forecast,
    manifests_for,
    plan_for,
    steps_of_run,
)
from raylens.workloads.lines import Lines

__all__ = ["explain_text", "manifest_lines", "pack_text", "shard_progress", "source_config", "verify_text"]

MOST_WORKERS = 4


def source_config(uri: str, kind: str, image_column: str | None, caption_column: str | None) -> SourceConfig:
    """Return the data set that the options of a command describe."""
    values = {"uri": uri, "format": kind, "image_column": image_column, "caption_column": caption_column}
    return validated(SourceConfig, values)


def manifest_lines(manifest: Manifest) -> Iterator[str]:
    """Yield lines with counts, rejected samples, and the manifest's digest."""
    size = sum(shard.size for shard in manifest.shards)
    yield (
        f"{count_text(len(manifest), 'samples')} in {count_text(manifest.table.num_rows, 'shards')}, "
        f"{bytes_text(size)} ({manifest.source.format_name})"
    )
    yield f"rejected: {manifest.rejected} ({manifest.rejected_summary()})"
    for line in manifest.warnings():
        yield with_severity(warning(line))
    yield f"manifest: {manifest.digest}"
    yield f"kept at: {open_store(manifest.home).describe()}"


@contextmanager
def shard_progress(what: str) -> Iterator[ProgressCallback]:
    """Show progress as a bar on a terminal, or as a line for each tenth in a log."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield _lines(console, what)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)


def _lines(console: Console, what: str) -> ProgressCallback:
    shown = 0

    def show(done: int, of: int) -> None:
        nonlocal shown
        if done * 10 // of > shown:
            shown = done * 10 // of
            console.print(f"{what}: {done:,} of {of:,}")

    return show


def verify_text(
    config: RunConfig, workers: Sequence[str], epochs: float | None, address: str | None, num_cpus: int | None
) -> Iterator[str]:
    """Yield lines with what was proven, whether a run's metrics agree, and what reading an epoch costs.

    Raises:
        CursorError: topologies differ, or an epoch is not covered exactly once.
        DataError: the run had other samples.
    """
    with shard_progress("indexing") as progress:
        plan, manifests = plan_for(config, Cluster(address, num_cpus), progress)
    of_epoch = sum(order.epoch_size for order in plan.orders)
    steps = max(1, -(-round((1.0 if epochs is None else epochs) * of_epoch) // config.global_batch))
    topologies = [_topology(text, config.global_batch) for text in workers] or _usual(config.global_batch, steps)
    last = max(step for topology in topologies for step, _ in topology.workers_from)
    if epochs is None:
        steps = max(steps, 2 * last if workers else 0, steps_of_run(config))
    elif last >= steps:
        raise ConfigError(f"--epochs {epochs:g} looks at {steps} steps, --workers changes at step {last}: look further")
    with shard_progress("verifying") as progress:
        result = verify(plan, config.global_batch, topologies, steps, progress)
    yield f"{result.steps:,} steps of {config.global_batch:,}: the same global batches under"
    yield from (f"  {name}" for name in result.topologies)
    for source, whole in zip(config.data.train, result.epochs, strict=True):
        dropped = " but for what drop_last leaves out" if config.data.drop_last else ""
        proven = f"{count_text(whole, 'whole epochs')}, each sample exactly once{dropped}"
        yield f"{source.uri}: {proven if whole else 'no whole epoch so far; --epochs looks further'}"
    compared = compare_with_run(config, result.hashes)
    yield (
        f"run {config.name!r}: {compared} steps of its metrics agree" if compared else f"run {config.name!r}: not begun"
    )
    cost = forecast(plan, manifests)
    yield (
        f"an epoch reads about {cost.bytes / 1e9:,.3g} GB in {cost.requests:,} requests of "
        f"{bytes_text(cost.bytes_per_request)}, {cost.requests_per_block:.0f} a block"
    )


def _topology(text: str, batch: int) -> Topology:
    try:
        first, *rest = text.split(",")
        changes = [
            (0, int(first)),
            *((int(step), int(count)) for step, count in (change.split(":") for change in rest)),
        ]
    except ValueError:
        raise ConfigError(f"--workers {text!r}: write a number, or 4,100:2 for 4 workers and 2 from step 100") from None
    steps = [step for step, _ in changes]
    if steps != sorted(set(steps)):
        raise ConfigError(f"--workers {text!r}: the steps at which workers change must ascend")
    if any(count < 1 or batch % count for _, count in changes):
        raise ConfigError(f"--workers {text!r}: global_batch = {batch} cannot be shared equally by so many")
    return Topology(tuple(changes))


def _usual(batch: int, steps: int) -> list[Topology]:
    counts = [count for count in range(1, MOST_WORKERS + 1) if batch % count == 0]
    plain = [Topology(((0, count),)) for count in counts]
    if steps < 3 or len(counts) < 2:
        return plain
    return [*plain, Topology(((0, counts[-1]), (steps // 3, counts[-2]), (2 * steps // 3, counts[-1])))]


def explain_text(
    config: RunConfig, step: int, rank: int | None, as_json: bool, address: str | None, num_cpus: int | None
) -> Iterator[str]:
    """Yield a line for each sample of a batch.

    Raises:
        ConfigError: the run has no such worker.
    """
    workers = config.resources.workers
    if rank is not None and rank >= workers:
        raise ConfigError(f"--rank {rank}: resources.workers = {workers}, so ranks are 0 to {workers - 1}")
    with shard_progress("indexing") as progress:
        plan, manifests = plan_for(config, Cluster(address, num_cpus), progress)
    rows = config.global_batch if rank is None else config.worker_batch
    first = (step - 1) * config.global_batch + (rank or 0) * rows
    samples = explain(plan, manifests, range(first, first + rows), config.data.crop_min_scale)
    if as_json:
        yield from (json.dumps(sample.as_dict()) for sample in samples)
        return
    whose = f"rank {rank}" if rank is not None else "all ranks"
    yield f"step {step}, {whose}: positions {first:,} to {first + rows - 1:,}"
    yield "(set: from 0, as in data.train; crop: edge at left,top in pixels of the image; caption: which of how many)"
    yield from _table(samples, several=len(manifests) > 1)


def _table(samples: Sequence[ExplainedSample], several: bool) -> Iterator[str]:
    header = ["position", *(["set"] if several else []), "epoch", "sample", "shard", "key", "image", "crop", "caption"]
    rows = [
        [
            str(row.position), *([str(row.source)] if several else []), str(row.epoch), str(row.sample),
            row.shard, row.key,
            f"{row.width}x{row.height}", f"{row.crop[2] - row.crop[0]:.1f} at {row.crop[0]:.1f},{row.crop[1]:.1f}",
            f"{row.caption + 1} of {row.captions}",
        ]
        for row in samples
    ]  # fmt: skip
    widths = [max(len(row[place]) for row in [header, *rows]) for place in range(len(header))]
    for row in [header, *rows]:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def pack_text(
    source: SourceConfig,
    out: str,
    manifests: str,
    per_shard: int,
    shorter_edge: int | None,
    address: str | None,
    num_cpus: int | None,
) -> Iterator[str]:
    """Pack a data set, and yield lines with what was written and what was left out.

    Raises:
        ManifestError: there is nothing to pack, or the folder holds something else.
    """
    target = open_store(out)
    folder, patterns = split_pattern(source.uri)
    if not patterns and f"{target.uri}/".startswith(f"{open_store(folder).uri}/"):
        raise ConfigError(f"{out} lies within {source.uri}: a second try would pack it too; choose another folder")
    with session(address, num_cpus, say=Lines().say):
        # Inside the session, so that Ray starts once, whether or not there is something to index.
        with shard_progress("indexing") as progress:
            (manifest,) = manifests_for([source], open_store(manifests), Cluster(address="auto"), progress)
        with shard_progress("packing") as progress:
            done = repack(manifest, target, ray_map, per_shard=per_shard, shorter_edge=shorter_edge, progress=progress)
    size = f"{count_text(done.samples, 'samples')} in {count_text(done.shards, 'shards')}, {bytes_text(done.bytes)}"
    yield f"{size}: {target.describe()}"
    if manifest.rejected or done.left_out:
        undecodable = f", {done.left_out} not decodable" if done.left_out else ""
        yield f"left out: {manifest.rejected_summary()}{undecodable}"
