"""One process of a small all-reduce: `rank.py HOST PORT RANK RANKS BACKEND GPU MEGABYTES SECONDS` prints JSON.

Its text is sent to the nodes, which may not have raylens.
"""

import json
import sys
import time
from datetime import timedelta
from typing import Any

__all__ = ["main"]

REPEATS = 5


def main(
    host: str, port: int, rank: int, ranks: int, backend: str, gpu: int, megabytes: int, seconds: float
) -> dict[str, Any]:
    """Meet the other processes at rank 0, report those that are missing, or else measure.

    Returns:
        The ``missing`` ranks; or the ``seconds`` of an all-reduce, its ``rate`` in gigabytes a second on each link, and
        whether the sum was ``right``.
    """
    import torch
    import torch.distributed as dist

    wait = timedelta(seconds=seconds)
    store = dist.TCPStore(  # type: ignore[attr-defined] # torch exports it all the same
        host, port, ranks, is_master=rank == 0, timeout=wait, wait_for_workers=False
    )
    missing = _meet(store, rank, ranks, seconds)
    if missing:
        return {"missing": missing}
    device = torch.device("cuda", gpu) if backend == "nccl" else torch.device("cpu")
    if backend == "nccl":
        torch.cuda.set_device(device)
    dist.init_process_group(backend, store=store, rank=rank, world_size=ranks, timeout=wait)
    values = torch.ones(megabytes * 250_000, device=device)
    took = []
    for _ in range(REPEATS):
        values.fill_(1.0)
        _settle(torch, backend)
        began = time.perf_counter()
        dist.all_reduce(values)
        _settle(torch, backend)
        took.append(time.perf_counter() - began)
    right = bool((values == ranks).all())
    # Nobody may leave before all are done, because the store lives in rank 0.
    dist.barrier()
    dist.destroy_process_group()
    best = min(took)
    return {"right": right, "seconds": best, "rate": 2 * (ranks - 1) / ranks * megabytes / 1000 / best}


def _settle(torch: Any, backend: str) -> None:
    if backend == "nccl":
        torch.cuda.synchronize()


def _meet(store: Any, rank: int, ranks: int, seconds: float) -> list[int]:
    """Return the ranks that have not connected to rank 0 when the time is over."""
    store.set(f"here/{rank}", b"1")
    if rank == 0:
        end, missing = time.monotonic() + seconds / 2, list(range(ranks))
        while missing and time.monotonic() < end:
            missing = [other for other in missing if not store.check([f"here/{other}"])]
            time.sleep(0.05)
        store.set("missing", json.dumps(missing))
        if missing:
            time.sleep(2.0)  # until the others have read it
    missing = json.loads(store.get("missing"))
    return [int(other) for other in missing]


if __name__ == "__main__":
    host, port, rank, ranks, backend, gpu, megabytes, seconds = sys.argv[1:]
    try:
        result = main(host, int(port), int(rank), int(ranks), backend, int(gpu), int(megabytes), float(seconds))
    except Exception as error:  # noqa: BLE001 (any error is a result of this examination)
        result = {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
    sys.stdout.write(json.dumps(result) + "\n")
