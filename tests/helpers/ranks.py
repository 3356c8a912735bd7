"""Process groups without Ray: ranks that run a function of a worker module, and what each returned."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Self

import torch

from raylens.train.loop.batch import Batch

ROOT = Path(__file__).parents[2]
HOST = Path(__file__).with_name("rank_host.py")
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # Pyarrow's allocator has a thread that purges: a process that forks has none but its first.
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}
SHOWN = 6000

__all__ = ["RankPool", "RanksFailedError", "share"]


class RanksFailedError(AssertionError):
    """A rank raised, was killed or took too long; the exit code of each, and the end of what it printed."""

    def __init__(self, work: str, codes: list[int], printed: list[str]) -> None:
        self.codes = codes
        self.printed = printed
        parts = [
            f"rank {rank}, exit code {code}:\n{text}"
            for rank, (code, text) in enumerate(zip(codes, printed, strict=True))
        ]
        super().__init__("\n".join([f"{work} on {len(codes)} ranks", *parts]))


class RankPool:
    """Process groups, one after the other, forked from one process that has imported torch and DeepSpeed.

    That process, the host, is started with the first group, and once more should it ever end.
    """

    def __init__(self) -> None:
        self._host: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._host is not None:
            self._host.communicate()

    def run(self, work: str, size: int, case: Any, seconds: float = 400.0) -> list[Any]:
        """What ``work``, ``module:function``, returned on each rank for ``case``.

        Raises:
            RanksFailedError: a rank raised, ended or took longer than ``seconds``; with what all of them printed.
        """
        with tempfile.TemporaryDirectory(prefix="ranks-") as name:
            folder = Path(name)
            torch.save(case, folder / "case.pt")
            codes = self._codes({"work": work, "size": size, "folder": name, "seconds": seconds})
            if any(codes):
                raise RanksFailedError(work, codes, [_printed(folder / f"rank-{rank}.txt") for rank in range(size)])
            return [torch.load(folder / f"rank-{rank}.pt", weights_only=False) for rank in range(size)]

    def _codes(self, job: dict[str, Any]) -> list[int]:
        host = self._started()
        assert host.stdin is not None
        assert host.stdout is not None
        host.stdin.write(json.dumps(job) + "\n")
        host.stdin.flush()
        answer = host.stdout.readline()
        if not answer:
            # The host's end is that of all its ranks.
            host.communicate()
            return [host.returncode] * job["size"]
        codes: list[int] = json.loads(answer)
        return codes

    def _started(self) -> subprocess.Popen[str]:
        if self._host is None or self._host.poll() is not None:
            environment = os.environ | ONE_THREAD | {"DS_ACCELERATOR": "cpu", "PYTHONPATH": str(ROOT)}
            self._host = subprocess.Popen(
                [sys.executable, str(HOST)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        return self._host


def _printed(path: Path) -> str:
    return path.read_text(errors="replace")[-SHOWN:] if path.exists() else ""


def share(batch: Batch, rank: int, size: int) -> Batch:
    """A rank's rows of a global batch."""
    rows = slice(rank * len(batch.ids_BT) // size, (rank + 1) * len(batch.ids_BT) // size)
    place = batch.position_B[rows]
    return Batch(batch.image_BSSC[rows], batch.ids_BT[rows], place, place, place)
