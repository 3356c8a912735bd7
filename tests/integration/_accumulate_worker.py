"""One rank of test_accumulation.py: `_accumulate_worker.py RANK SIZE FOLDER`.

Reads ``cases.pt``, a list of configurations with the global batches of each; takes their steps with the real engine and
writes ``out-SIZE.pt``, for each case what the steps told and the weights after them.
"""

import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from raylens.models import DualEncoder
from raylens.train.forward import forward_of
from raylens.train.loop import Batch
from raylens.train.zero import ZeroEngine, fp32_weights

if TYPE_CHECKING:
    from raylens.config import RunConfig


def steps(case: dict[str, Any], rank: int, size: int, folder: Path) -> dict[str, Any]:
    config: RunConfig = case["config"]
    model = DualEncoder(config.model, end_id=1, mean=(0.5,) * 3, std=(0.5,) * 3, bias=config.objective.bias)
    model.load_state_dict(case["weights"])
    micro_batch = config.worker_batch // case["micro_batches"]
    engine = ZeroEngine(config, forward_of(model, config), micro_batch, torch.device("cpu"))
    told = [engine.train_step(share(batch, rank, size), lr=case["lr"]) for batch in case["batches"]]
    engine.save(folder)
    dist.barrier()
    weights = fp32_weights(folder, config.zero.stage) if rank == 0 else {}
    return {"told": told, "weights": weights}


def share(batch: Batch, rank: int, size: int) -> Batch:
    rows = slice(rank * len(batch.ids_BT) // size, (rank + 1) * len(batch.ids_BT) // size)
    place = batch.position_B[rows]
    return Batch(batch.image_BSSC[rows], batch.ids_BT[rows], place, place, place)


def main() -> None:
    rank, size, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting-{size}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=size, timeout=timedelta(seconds=120))
    # Written by the test itself.
    cases = torch.load(folder / f"cases-{size}.pt", weights_only=False)
    results = [steps(case, rank, size, folder / f"state-{size}-{number}") for number, case in enumerate(cases)]
    if rank == 0:
        torch.save(results, folder / f"out-{size}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
