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
from raylens.train.assemble import assembled
from raylens.train.forward import forward_of
from raylens.train.schedule import Moment
from raylens.train.zero import ZeroEngine
from tests.integration.ranks import share

if TYPE_CHECKING:
    from raylens.config import RunConfig


def steps(case: dict[str, Any], rank: int, size: int) -> dict[str, Any]:
    config: RunConfig = case["config"]
    model = DualEncoder(config.model, end_id=1, mean=(0.5,) * 3, std=(0.5,) * 3, bias=config.objective.bias)
    model.load_state_dict(case["weights"])
    micro_batch = config.worker_batch // case["micro_batches"]
    engine = ZeroEngine(config, forward_of(model, config), micro_batch, torch.device("cpu"))
    told = [engine.train_step(share(batch, rank, size), Moment(0, 1)) for batch in case["batches"]]
    parts: list[Any] = [None] * size
    dist.all_gather_object(parts, engine.state.snapshot().tensors)
    weights = assembled(config.model, parts) if rank == 0 else {}
    return {"told": told, "weights": weights}


def main() -> None:
    rank, size, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting-{size}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=size, timeout=timedelta(seconds=120))
    # Written by the test itself.
    cases = torch.load(folder / f"cases-{size}.pt", weights_only=False)
    results = [steps(case, rank, size) for case in cases]
    if rank == 0:
        torch.save(results, folder / f"out-{size}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
