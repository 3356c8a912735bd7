"""Processes that are the ranks of a group, without Ray: a script, a folder to meet in, and what each printed."""

import os
import subprocess
import sys
from pathlib import Path

from raylens.train.batch import Batch

ROOT = Path(__file__).parents[2]

__all__ = ["run_ranks", "share"]


def run_ranks(script: Path, size: int, folder: Path, seconds: float = 400.0) -> None:
    """``script RANK SIZE FOLDER`` in as many processes; all must end well."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "LOCAL_SIZE": str(size)}
    environment["PYTHONPATH"] = str(ROOT)
    ranks = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), str(size), str(folder)],
            env=environment | {"LOCAL_RANK": str(rank), "RANK": str(rank), "WORLD_SIZE": str(size)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(size)
    ]
    try:
        printed = [rank.communicate(timeout=seconds)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    assert [rank.returncode for rank in ranks] == [0] * size, "\n".join(text[-6000:] for text in printed)


def share(batch: Batch, rank: int, size: int) -> Batch:
    """A rank's rows of a global batch."""
    rows = slice(rank * len(batch.ids_BT) // size, (rank + 1) * len(batch.ids_BT) // size)
    place = batch.position_B[rows]
    return Batch(batch.image_BSSC[rows], batch.ids_BT[rows], place, place, place)
