"""One process of the bare loop of steps.py: `bare.py RANK WORKERS FOLDER STEPS`."""

import json
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_gather
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from raylens.models import DualEncoder
from raylens.train.engine.optimizer import parameter_groups


def clip_loss(image_bD: Tensor, text_bD: Tensor, log_scale: Tensor) -> Tensor:
    """As everybody writes it: all embeddings gathered with their gradients, the whole matrix of logits."""
    image_BD, text_BD = (torch.cat(all_gather(one)) for one in (image_bD, text_bD))
    logits_BB = log_scale.exp() * image_BD @ text_BD.T
    target_B = torch.arange(len(logits_BB))
    return (functional.cross_entropy(logits_BB, target_B) + functional.cross_entropy(logits_BB.T, target_B)) / 2


def main() -> None:
    rank, workers, folder, steps = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=workers)
    given = torch.load(folder / "given.pt", weights_only=False)  # written by the benchmark itself
    config, preprocess = given["config"], given["preprocess"]
    model = DualEncoder(config.model, end_id=given["end_id"], mean=preprocess.mean, std=preprocess.std)
    model.load_state_dict(given["weights"])
    wrapped = DistributedDataParallel(model)
    optim = config.optim
    groups = [
        {"params": group["params"], "weight_decay": group["weight_decay"]} for group in parameter_groups(model, optim)
    ]
    betas = (optim.beta1, optim.beta2)
    optimizer = ZeroRedundancyOptimizer(groups, torch.optim.AdamW, lr=optim.peak_lr, betas=betas, eps=optim.eps)
    share, losses, seconds = config.global_batch // workers, [], []
    mine = slice(rank * share, (rank + 1) * share)
    for step in range(steps):
        began = time.perf_counter()
        image, ids = given["batches"][step % len(given["batches"])]
        image_bD, text_bD, log_scale, _ = wrapped(image[mine], ids[mine])
        loss = clip_loss(image_bD, text_bD, log_scale)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        seconds.append(time.perf_counter() - began)
    print(json.dumps({"losses": losses, "seconds": seconds}))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
