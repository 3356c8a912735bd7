"""What a run reads from its store and writes to it, in bytes and requests."""

import math
from collections.abc import Mapping

from raylens.config import CheckpointConfig, RunConfig
from raylens.estimate import FP32, counts_of
from raylens.train.checkpoint import steps_to_keep
from raylens.workloads.cost.terms import Data, Figure
from raylens.workloads.cost.time import Duration

__all__ = ["checkpoint_bytes", "checkpoints_kept", "storage_figures", "upload_requests"]

PART_BYTES = 8 * 2**20
"""Bytes of the parts in which objects are uploaded and downloaded."""
PAGE = 1000
"""Number of objects in an answer to LIST."""
PLACE_BYTES = 29
"""Bytes of ``samples.bin`` for each sample, which every decoding node fetches once."""
LINE_BYTES, HASH_BYTES = 900, 20
"""Approximate bytes of a record in ``metrics.jsonl``, and of each step's hash in it."""
LOG_SECONDS, LOG_LINES = 10.0, 1000
"""Seconds between writes of all records, a time that grows by itself with every so many lines."""


def storage_figures(
    config: RunConfig, data: Data, steps: int, time: Duration, nodes: Mapping[str, int]
) -> list[Figure]:
    """Return the figures of data, checkpoints, the bundle and the records.

    Args:
        config: the configuration of the run.
        data: the size of the data.
        steps: the number of steps of the run.
        time: the duration of the run.
        nodes: the number of nodes of each group; those of ``decode``, or else of ``train``, fetch the sample index.
    """
    seen = steps * config.global_batch + time.repeated
    readers = nodes.get("decode", nodes.get("train", 1))
    places = PLACE_BYTES * data.pairs
    read = seen * data.bytes_per_pair
    gets = seen * data.gets_per_pair + readers * math.ceil(places / PART_BYTES)
    return [
        Figure("data read", read + readers * places, "bytes", _read_text(data, readers)),
        Figure(
            "GET requests", gets, "requests", f"{data.gets_per_pair:.4g} a pair ({data.how}), and the places of samples"
        ),
        *_checkpoints(config, steps, time),
        *_rest(config, data, steps, time),
    ]


def _read_text(data: Data, readers: int) -> str:
    each = f"{data.bytes_per_pair:,.0f} bytes a pair ({data.how})"
    return f"{each}; and the places of samples, {PLACE_BYTES} bytes each, to {readers} nodes"


def _checkpoints(config: RunConfig, steps: int, time: Duration) -> list[Figure]:
    every = time.checkpoint_steps
    made = math.ceil(steps / every)
    size, left = checkpoint_bytes(config), checkpoints_kept(config.checkpoint, steps, every)
    part = math.ceil(size / config.resources.workers)
    puts = config.resources.workers * upload_requests(part) + 1
    # raylens.train.checkpoint.retention.prune lists what is kept and what is left over.
    lists = 4 * math.ceil((left + 1) * (config.resources.workers + 1) / PAGE)
    return [
        Figure("checkpoint", size, "bytes", "weights, moments and averages in fp32, of the model's parameters"),
        Figure("checkpoints written", made, "times", f"every {every:,} steps and at the end"),
        Figure("written", made * size, "bytes", f"{made:,} checkpoints"),
        Figure("kept", left * size, "bytes", f"{left} checkpoints at the end: {_rules(config.checkpoint)}"),
        Figure(
            "PUT requests of checkpoints",
            made * puts,
            "requests",
            f"{config.resources.workers} workers' parts of {part / 2**20:,.0f} MiB, 8 MiB a request, and a manifest",
        ),
        Figure("LIST requests of checkpoints", made * lists, "requests", f"{lists} after each, to see which are kept"),
    ]


def _rules(config: CheckpointConfig) -> str:
    parts = [f"the last {config.keep_last}"]
    parts += [f"those at multiples of {config.keep_every:,} steps"] if config.keep_every else []
    parts += [f"the best {config.keep_best}"] if config.keep_best else []
    return ", ".join(parts)


def checkpoint_bytes(config: RunConfig) -> int:
    """Return the bytes of a checkpoint: fp32 weights, and moments and the average of trainable ones."""
    counts = counts_of(config, config.model.text.context)
    kinds = 1 + (1 if config.optim.kind == "lion" else 2) + (1 if config.optim.ema_decay else 0)
    return FP32 * (counts.parameters - counts.trainable + kinds * counts.trainable)


def checkpoints_kept(config: CheckpointConfig, steps: int, every: int) -> int:
    """Return how many checkpoints are left at the end, assuming that the best are not among the last."""
    saved = [*range(every, steps + 1, every)]
    if not saved or saved[-1] != steps:
        saved.append(steps)
    plain = config.model_copy(update={"keep_best": 0})
    return min(len(saved), len(steps_to_keep(dict.fromkeys(saved), plain)) + config.keep_best)


def upload_requests(size: float) -> int:
    """Return the PUT and POST requests of an object; one larger than a part is a multipart upload."""
    return 1 if size <= PART_BYTES else math.ceil(size / PART_BYTES) + 2


def _rest(config: RunConfig, data: Data, steps: int, time: Duration) -> list[Figure]:
    counts = counts_of(config, config.model.text.context)
    lines = math.ceil(steps / config.log_every_steps)
    metrics = lines * (LINE_BYTES + HASH_BYTES * config.log_every_steps)
    rewrites = _writes(lines, 3600 * time.hours)
    return [
        Figure("bundle", FP32 * counts.parameters, "bytes", f"{counts.parameters:,} weights in fp32"),
        Figure(
            "records", metrics, "bytes", f"{lines:,} lines of metrics.jsonl, one every {config.log_every_steps} steps"
        ),
        Figure(
            "PUT requests of records",
            rewrites,
            "requests",
            f"the whole file each time, every {LOG_SECONDS:.0f} s at first",
        ),
        Figure("LIST requests of data", data.lists, "requests", f"{PAGE} objects a page, at each start"),
    ]


def _writes(lines: int, seconds: float) -> int:
    """Return the number of writes: one each ``LOG_SECONDS x (1 + lines // LOG_LINES)``, at most one a line."""
    written, done = 0.0, 0
    while done < lines:
        block = min(LOG_LINES, lines - done)
        written += block / lines * seconds / (LOG_SECONDS * (1 + done // LOG_LINES))
        done += block
    return min(lines, math.ceil(written)) + 1
