"""One rank of test_engine.py: `_engine_worker.py RANK SIZE FOLDER`.

Reads ``cases-SIZE.pt``; takes the steps of each case with the real engine, from a saved state or the beginning, and
writes ``out-SIZE.pt``: what each told, and all workers' states at the end.
"""

import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from raylens.models import DualEncoder
from raylens.train.forward import forward_of
from raylens.train.schedule import Moment
from raylens.train.snapshot import Snapshot
from raylens.train.zero import ZeroEngine
from tests.integration.ranks import share

if TYPE_CHECKING:
    from raylens.config import RunConfig


def result_of(case: dict[str, Any], rank: int, size: int) -> dict[str, Any]:
    config: RunConfig = case["config"]
    model = DualEncoder(config.model, end_id=1, mean=(0.5,) * 3, std=(0.5,) * 3)
    model.load_state_dict(case["weights"])
    micro_batch = config.worker_batch // case["micro_batches"]
    engine = ZeroEngine(config, forward_of(model, config), micro_batch, torch.device("cpu"))
    if case["from"] is not None:
        saved: list[Snapshot] = torch.load(case["from"], weights_only=False)["states"]
        pieces = {key: tensor for state in saved for key, tensor in state.tensors.items()}
        own = saved[rank if len(saved) == size else 0].own
        engine.state.restore(Snapshot(pieces, own, saved[0].scaler, saved[0].applied))
    first = case["first"]
    told = [
        engine.train_step(share(batch, rank, size), Moment(step, case["steps"]))
        for step, batch in enumerate(case["batches"], first)
    ]
    with engine.averaged(Moment(0, 1)) as forward, torch.no_grad():
        mine = share(case["batches"][0], rank, size)
        image_BD = forward(torch.from_numpy(mine.image_BSSC), torch.from_numpy(mine.ids_BT), None).image_BD
    states: list[Any] = [None] * size
    dist.all_gather_object(states, engine.state.snapshot())
    images: list[Any] = [None] * size
    dist.all_gather_object(images, image_BD)
    return {"told": told, "states": states, "image_BD": torch.cat(images)}


def main() -> None:
    rank, size, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    from deepspeed.accelerator import get_accelerator

    # Torch computes in fp16 on any processor, slowly; DeepSpeed asks whether it does so fast.
    get_accelerator().is_fp16_supported = lambda: True
    meeting = f"file://{folder}/meeting-{size}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=size, timeout=timedelta(seconds=120))
    # Written by the test itself.
    cases = torch.load(folder / f"cases-{size}.pt", weights_only=False)
    for case in cases:
        result = result_of(case, rank, size)
        if rank == 0:
            torch.save(result, folder / f"{case['name']}.pt")
        dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
