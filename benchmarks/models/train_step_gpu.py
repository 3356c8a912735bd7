"""Training steps of a recipe on one GPU: pairs a second, share of the GPU's peak, and memory beside `raylens estimate`.

    python -m benchmarks.models.train_step_gpu [--cases vit_b32:amp_bf16:4096 vit_b32:amp_bf16:32768:2048] [--steps 5]

The engine that a run has: towers, loss, DeepSpeed ZeRO 1 with AdamW, accumulation; no Ray and no stream, pairs lie in
host memory. A case is recipe, precision, batch and, where given, the pairs that go through the towers at a time; else
what fits is chosen. Captions have the lengths of `caption_lengths`. FLOP/s count the towers once forward and twice
backward, on the tokens that there are; what accumulation computes again is not counted. Prints one JSON object a case.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from benchmarks.models.peers import END, caption_lengths, ids_of
from raylens.config import RunConfig, apply_overrides, validated
from raylens.estimate.flops import ModelFlops
from raylens.estimate.machine import Machine
from raylens.estimate.step import estimate
from raylens.inputs.preprocess import CLIP_MEAN, CLIP_STD
from raylens.models import DualEncoder
from raylens.train.engine.forward import build_forward
from raylens.train.engine.micro_batch import fitting_micro_batch, largest_divisor
from raylens.train.engine.zero import ZeroEngine
from raylens.train.loop.batch import Batch
from raylens.train.loop.schedule import TrainingProgress
from raylens.workloads.recipes import configure

CASES = ("vit_b32:amp_bf16:4096", "vit_b32:bf16:4096", "vit_b32:amp_bf16:32768")
KEPT = 512
"""Pictures, of which a batch is made by repetition: nothing here looks at them."""


def batch_of(config: RunConfig, lengths: list[int]) -> Batch:
    count, size, context = config.global_batch, config.model.image.size, config.model.text.context
    draw = np.random.default_rng(0)
    pictures = draw.integers(0, 256, (min(KEPT, count), size, size, 3), dtype=np.uint8)
    ids_BT, end = ids_of(lengths)[:, :context].int().numpy(), config.model.text.vocab - 1
    ids_BT = np.where(ids_BT == END, end, ids_BT % end)  # for vocabularies of any size
    place_B = np.arange(count)
    return Batch(pictures[place_B % len(pictures)], ids_BT, place_B, place_B, np.zeros_like(place_B))


def engine_of(config: RunConfig, device: torch.device) -> ZeroEngine:
    torch.manual_seed(0)
    model = DualEncoder(config.model, end_id=config.model.text.vocab - 1, mean=CLIP_MEAN, std=CLIP_STD)
    forward = build_forward(model, config).to(device)
    micro_batch = config.scale.micro_batch
    if micro_batch is None:
        micro_batch = largest_divisor(config.worker_batch, fitting_micro_batch(forward, config, device, 1))
    return ZeroEngine(config, forward, micro_batch, device)


def config_of(case: str) -> RunConfig:
    recipe, precision, batch, *micro_batch = case.split(":")
    changes = [f"precision={precision}", f"global_batch={batch}", "scale.workers=1", "objective.products=bf16"]
    changes += [f"scale.micro_batch={micro_batch[0]}"] if micro_batch else []
    tree = configure(recipe, ()).model_dump(mode="json")
    return validated(RunConfig, apply_overrides(tree, changes))


def measured(config: RunConfig, steps: int, device: torch.device) -> dict[str, Any]:
    """Of some steps behind two that warm up."""
    lengths = [min(length, config.model.text.context) for length in caption_lengths(config.global_batch)]
    batch, engine = batch_of(config, lengths), engine_of(config, device)
    seconds, losses = [], []
    for step in range(steps + 2):
        began = time.perf_counter()
        losses.append(engine.train_step(batch, TrainingProgress(step, 1000)).loss)  # a float: it waited for the GPU
        seconds.append(time.perf_counter() - began)
    began = time.perf_counter()
    engine._micro_batches(batch)
    if device.type == "cuda":
        torch.cuda.synchronize()
    to_device = time.perf_counter() - began
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    tokens, flops = statistics.mean(lengths), ModelFlops(config, name)
    rate = config.global_batch / statistics.median(seconds[2:])
    return {
        "seconds": seconds,
        "to_device_seconds": to_device,
        "losses": losses,
        "micro_batch": engine.micro_batch,
        "pairs_per_second": rate,
        "teraflops": rate * flops.of_pair(tokens) / 1e12,
        "mfu": None if flops.peak is None else rate * flops.of_pair(tokens) / flops.peak,
        "tokens": tokens,
        "peak_gib": engine.tower_stats().memory_bytes / 2**30,
    }


def predicted(config: RunConfig, found: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """What `raylens estimate` says of the same step, at its own assumption of the GPU's efficiency."""
    total = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 80 * 2**30
    machine = Machine(memory_bytes=total)
    said = estimate(config, machine, workers=1, micro_batch=found["micro_batch"], tokens=round(found["tokens"]))
    return {
        "predicted_gib": said.memory.total / 2**30,
        "predicted_pairs_per_second": said.pairs_per_second,
        "predicted_mfu": machine.mfu,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=CASES, metavar="RECIPE:PRECISION:BATCH[:MICRO_BATCH]")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help="cpu only shows that all of it runs")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("train_step_gpu: torch finds no CUDA device; run it on a machine with a GPU")
    device = torch.device(options.device, 0) if options.device == "cuda" else torch.device("cpu")
    os.environ.setdefault("LOCAL_RANK", "0")
    with tempfile.TemporaryDirectory() as folder:
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, init_method=f"file://{folder}/meeting", rank=0, world_size=1)
        for case in options.cases:
            config = config_of(case)
            if device.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            found = measured(config, options.steps, device)
            figures = {"claim": f"train_step_{case}"} | found | predicted(config, found, device)
            where = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
            print(json.dumps(figures | {"device": where, "torch": torch.__version__}), flush=True)
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
