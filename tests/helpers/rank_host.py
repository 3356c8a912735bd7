"""Forks the ranks of process groups, from a process that has imported what they need: `python rank_host.py`.

Reads jobs from standard input, one a line, and answers each with the exit codes of its ranks; it ends, with every rank
that it started, when its standard input does. A job names a function, ``module:function``, that each rank calls with
what ``case.pt`` in the job's folder holds, its rank and the number of ranks; what it returns is in ``rank-N.pt``, and
what the rank printed in ``rank-N.txt``. A rank is forked for its case, so that no case finds what another left.
"""

import ctypes
import faulthandler
import gc
import json
import multiprocessing
import os
import signal
import sys
import time
from datetime import timedelta
from importlib import import_module
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

PRELOADED = (
    "torch._dynamo",
    "torch._inductor.compile_fx",
    "deepspeed.runtime.zero.muon.muon_optimizer",
    "deepspeed.ops.op_builder.all_ops",
    "deepspeed.module_inject.auto_ep_layer",
    "deepspeed.runtime.superoffload.superoffload_stage3",
    "torch._subclasses.schema_check_mode",
    "raylens.train.engine.zero",
    "raylens.train.checkpoint.consolidate",
    "pytorch_optimizer",
)
PR_SET_PDEATHSIG = 1
GRACE_SECONDS = 5.0
"""For the other ranks, where one has failed: their collectives fail as well, and say with what."""


def main() -> None:
    for module in PRELOADED:
        import_module(module)
    # DeepSpeed collects garbage where it looks at memory: ranks need not go through all of the modules for it.
    gc.freeze()
    for line in sys.stdin:
        codes = run(**json.loads(line))
        sys.stdout.write(json.dumps(codes) + "\n")
        sys.stdout.flush()


def run(work: str, size: int, folder: str, seconds: float) -> list[int | None]:
    """The exit codes of a job's ranks; below zero is the signal that ended one, here SIGABRT where it took too long."""
    forked = [ForkProcess(target=rank_main, args=(work, rank, size, Path(folder)), daemon=True) for rank in range(size)]
    for rank in forked:
        rank.start()
    try:
        await_all(forked, time.monotonic() + seconds)
    finally:
        for rank in forked:
            rank.kill()
            rank.join()
    return [rank.exitcode for rank in forked]


def await_all(ranks: list[ForkProcess], deadline: float) -> None:
    while running := [rank for rank in ranks if rank.exitcode is None]:
        ended = wait([sys.stdin.fileno(), *(rank.sentinel for rank in running)], deadline - time.monotonic())
        if sys.stdin.fileno() in ended:  # a job at a time: it can only be the end
            sys.exit(1)
        if not ended:
            abort(running)
            return
        if any(rank.exitcode for rank in ranks):
            deadline = min(deadline, time.monotonic() + GRACE_SECONDS)


def abort(ranks: list[ForkProcess]) -> None:
    """End ranks that hang; each prints where it is."""
    for rank in ranks:
        assert rank.pid is not None
        os.kill(rank.pid, signal.SIGABRT)
    wait([rank.sentinel for rank in ranks], GRACE_SECONDS)


def rank_main(work: str, rank: int, size: int, folder: Path) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    with (folder / f"rank-{rank}.txt").open("wb") as printed:
        os.dup2(printed.fileno(), 1)
        os.dup2(printed.fileno(), 2)
    faulthandler.enable()
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_SIZE": str(size)}
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    # DeepSpeed's ZeRO 3 formats every parameter for messages that nobody sees.
    torch.set_printoptions(threshold=0, edgeitems=1)
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=size, timeout=timedelta(seconds=120))
    module, function = work.split(":")
    # Written by the test itself.
    case = torch.load(folder / "case.pt", weights_only=False)
    result: Any = getattr(import_module(module), function)(case, rank, size)
    torch.save(result, folder / f"rank-{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    main()
