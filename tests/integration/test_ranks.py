"""The pool of ranks itself: a failure says which rank and why, and costs no other case anything."""

import os
import signal
import time
from pathlib import Path

import psutil
import pytest
import torch
import torch.distributed as dist

from tests.helpers.ranks import RankPool, RanksFailedError

HERE = "tests.integration.test_ranks"


def ranks_and_sum(case: str, rank: int, size: int) -> tuple[str, int, int, float]:
    total = torch.tensor(float(rank))
    dist.all_reduce(total)
    return case, rank, size, total.item()


def raise_on_rank_1(case: str, rank: int, size: int) -> None:
    dist.barrier()
    if rank == 1:
        raise ValueError(case)
    time.sleep(3600)


def kill_host(case: Path, rank: int, size: int) -> None:
    (case / str(rank)).write_text(str(os.getpid()))
    dist.barrier()
    if rank == 1:
        os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(3600)


@pytest.mark.parametrize("size", [1, 3])
def test_each_rank_s_result_comes_back_in_order(ranks: RankPool, size: int) -> None:
    expected = [("case", rank, size, float(sum(range(size)))) for rank in range(size)]
    assert ranks.run(f"{HERE}:ranks_and_sum", size, "case") == expected


def test_a_rank_that_raises_is_named_and_the_one_that_waits_says_where(ranks: RankPool) -> None:
    with pytest.raises(RanksFailedError) as failed:
        ranks.run(f"{HERE}:raise_on_rank_1", 2, "what went wrong")
    assert failed.value.codes == [-signal.SIGABRT, 1]
    assert "in raise_on_rank_1" in failed.value.printed[0]
    assert "ValueError: what went wrong" in failed.value.printed[1]
    assert len(ranks.run(f"{HERE}:ranks_and_sum", 2, "next")) == 2


def test_ranks_that_take_too_long_are_ended(ranks: RankPool) -> None:
    with pytest.raises(RanksFailedError) as failed:
        ranks.run(f"{HERE}:raise_on_rank_1", 1, "", seconds=0.0)
    assert failed.value.codes == [-signal.SIGABRT]
    assert len(ranks.run(f"{HERE}:ranks_and_sum", 1, "next")) == 1


def test_no_rank_outlives_the_host_and_another_takes_its_place(ranks: RankPool, tmp_path: Path) -> None:
    with pytest.raises(RanksFailedError) as failed:
        ranks.run(f"{HERE}:kill_host", 2, tmp_path)
    assert failed.value.codes == [-signal.SIGKILL] * 2
    for rank in range(2):
        while is_running(int((tmp_path / str(rank)).read_text())):
            time.sleep(0.01)
    assert len(ranks.run(f"{HERE}:ranks_and_sum", 2, "next")) == 2


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
