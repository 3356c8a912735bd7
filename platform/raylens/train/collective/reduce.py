"""Reductions over the workers of a run: of scalars, of sample numbers, and of the metrics of a window."""

from dataclasses import replace

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from raylens.train.loop.metrics import StepMetrics

__all__ = ["all_mean", "gather_numbers", "reduce_metrics"]

HALF = 32
SHOWN = 16


def all_mean(value: Tensor) -> Tensor:
    """Return the mean of a scalar over all workers. Collective."""
    value = value.detach().clone()
    dist.all_reduce(value)
    return value / dist.get_world_size()


def gather_numbers(numbers: NDArray[np.int64]) -> tuple[int, ...]:
    """Return the first few numbers of all workers together. Collective."""
    parts: list[list[int]] = [[]] * dist.get_world_size()
    dist.all_gather_object(parts, numbers[:SHOWN].tolist())
    return tuple(number for part in parts for number in part)[:SHOWN]


def reduce_metrics(record: StepMetrics, device: torch.device) -> StepMetrics:
    """Return the metrics of all workers from those of each. Collective.

    Counts are summed, hashes are summed modulo 2**64, norms are averaged, and of waits and memory the largest counts.
    """
    words = [int(text, 16) for text in record.sample_hashes]
    # In halves, because a sum of signed 64-bit words would overflow.
    halves = [part for word in words for part in (word >> HALF, word & (1 << HALF) - 1)]
    counts = torch.tensor([record.substituted, record.truncated, *halves], dtype=torch.int64, device=device)
    dist.all_reduce(counts)
    substituted, truncated, *sums = counts.tolist()
    hashes = tuple(
        f"{((high << HALF) + low) % (1 << 2 * HALF):016x}" for high, low in zip(sums[::2], sums[1::2], strict=True)
    )
    cores, image, text, tokens, *counted = _summed(record, device)
    bins, workers = len(record.positive_cosines), dist.get_world_size()
    memory = torch.tensor([record.memory_bytes], dtype=torch.int64, device=device)
    dist.all_reduce(memory, op=dist.ReduceOp.MAX)
    waits: list[tuple[float, str, float]] = [(0.0, "", 0.0)] * dist.get_world_size()
    dist.all_gather_object(waits, (record.data_wait, record.bound, record.paused_seconds))
    wait, bound, _ = max(waits)
    return replace(
        record,
        substituted=substituted,
        truncated=truncated,
        sample_hashes=hashes,
        data_cores=cores,
        image_norm=None if record.image_norm is None else image / workers,
        text_norm=None if record.text_norm is None else text / workers,
        tokens=tokens / workers,
        positive_cosines=tuple(map(int, counted[:bins])),
        negative_cosines=tuple(map(int, counted[bins:])),
        memory_bytes=int(memory),
        data_wait=wait,
        bound=bound,
        paused_seconds=max(paused_seconds for _, _, paused_seconds in waits),
    )


def _summed(record: StepMetrics, device: torch.device) -> list[float]:
    lengths = (record.image_norm or 0.0, record.text_norm or 0.0)
    values = (record.data_cores, *lengths, record.tokens, *record.positive_cosines, *record.negative_cosines)
    sums = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(sums)
    return [float(total) for total in sums.tolist()]
