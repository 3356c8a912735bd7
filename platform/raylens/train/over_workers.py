"""One record for all workers from each worker's own."""

from dataclasses import replace

import torch
import torch.distributed as dist

from raylens.train.loop import Record

__all__ = ["over_workers"]

HALF = 32


def over_workers(record: Record, device: torch.device) -> Record:
    """What is counted is added up, hashes modulo 2**64; of the waits, the longest counts. Collective."""
    words = [int(text, 16) for text in record.sample_hashes]
    # In halves: a sum of 64-bit words would overflow, and only unsigned ones may.
    halves = [part for word in words for part in (word >> HALF, word & (1 << HALF) - 1)]
    counts = torch.tensor([record.substituted, record.truncated, *halves], dtype=torch.int64, device=device)
    dist.all_reduce(counts)
    substituted, truncated, *sums = counts.tolist()
    hashes = tuple(
        f"{((high << HALF) + low) % (1 << 2 * HALF):016x}" for high, low in zip(sums[::2], sums[1::2], strict=True)
    )
    cores = torch.tensor([record.data_cores], dtype=torch.float64, device=device)
    dist.all_reduce(cores)
    waits: list[tuple[float, str]] = [(0.0, "")] * dist.get_world_size()
    dist.all_gather_object(waits, (record.data_wait, record.bound))
    wait, bound = max(waits)
    return replace(
        record,
        substituted=substituted,
        truncated=truncated,
        sample_hashes=hashes,
        data_cores=float(cores),
        data_wait=wait,
        bound=bound,
    )
