"""Seconds a step of the whole training loop beside a bare loop in torch on the same model, weights and batches.

    ours    two Ray Train workers, batches from Ray Data's stream, DeepSpeed ZeRO 1, a record of every step, checkpoints
    bare    two processes, DDP and ZeroRedundancyOptimizer, batches in memory, nothing else (train_loop_bare.py)

Both take gloo, one thread a worker, fp32, AdamW with the same groups, and the loss over the global batch. First the
losses of some steps are compared: the work is the same. Then both run in turns, in fresh processes; the claim is the
median over rounds of the ratio of median step times. The stream's reading and decoding, on the same two cores, is in
ours; images are small, so that it is little. Prints one JSON object a claim.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import tell_machine, worker_niceness
from PIL import Image

from raylens.cluster import session
from raylens.config import RunConfig, apply_overrides, validated
from raylens.data.pack import NewSample, pack
from raylens.data.unit import UnitMaker
from raylens.storage import open_store
from raylens.train import train
from raylens.train.metrics import read_metrics
from raylens.train.prepare import prepare
from raylens.train.worker import build_model

HERE = Path(__file__).parent
WORKERS, BATCH, KEPT = 2, 128, 10
EVERY = 10
"""Steps of a record, as by default; step times are means over them."""
AGREE = 1e-4
"""Relative: both compute in fp32, in another order."""


def config_of(folder: Path, name: str, steps: int) -> RunConfig:
    tree = {
        "name": name,
        "storage": str(folder / "runs"),
        "global_batch": BATCH,
        "data": {"train": str(folder / "shards"), "crop_min_scale": 1.0},
        "model": {
            "embed_dim": 256,
            "image": {"size": 64, "patch": 8, "width": 256, "layers": 6, "heads": 4},
            "text": {"context": 24, "vocab": 1000, "width": 256, "layers": 4, "heads": 4},
        },
        "optim": {"peak_lr": 1e-4, "schedule": {"kind": "constant", "warmup_steps": 0}},
        "length": {"samples_seen": BATCH * steps},
        "checkpoint": {"every_steps": 25, "keep_last": 1},
        "scale": {"workers": WORKERS, "micro_batch": BATCH // WORKERS},
        "log_every_steps": EVERY,
    }
    return validated(RunConfig, apply_overrides(tree, []))


def samples(count: int) -> list[NewSample]:
    draw, found = np.random.default_rng(3), []
    words = ["red", "blue", "small", "large", "round", "square", "old", "new", "cat", "dog", "house", "tree"]
    for number in range(count):
        with tempfile.SpooledTemporaryFile() as file:
            coarse = Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            coarse.resize((64, 64), Image.Resampling.BICUBIC).save(file, format="JPEG", quality=85)
            file.seek(0)
            image = file.read()
        caption = " ".join(draw.choice(words, draw.integers(4, 12)))
        found.append(NewSample(f"{number:05d}", image, "jpg", caption, {}))
    return found


def given_to_bare(config: RunConfig, file: Path) -> None:
    """The weights that the run begins with, and its first batches, over and over."""
    ready = prepare(config, lambda _: None)
    homes = tuple(manifest.home for manifest in ready.manifests)
    maker = UnitMaker(
        ready.plan, homes, ready.store.uri, ready.preprocess, ready.tokenizer.to_json(), config.model.text.context,
        config.data.crop_min_scale, config.data.max_pixels,
    )  # fmt: skip
    blocks = [maker.make(step * BATCH, (step + 1) * BATCH) for step in range(KEPT)]
    batches = [(torch.from_numpy(block["image"]), torch.from_numpy(block["ids"])) for block in blocks]
    model = build_model(config, ready.tokenizer, ready.preprocess)
    described = {"config": config, "end_id": ready.tokenizer.end_id, "preprocess": ready.preprocess}
    torch.save({"batches": batches, "weights": model.state_dict(), **described}, file)


def ours(folder: Path, name: str, steps: int) -> dict[str, list[float]]:
    config = config_of(folder, name, steps)
    with session(num_cpus=4):
        train(config, say=lambda _: None)
    records = read_metrics(open_store(config.storage) / name)
    return {
        "losses": [record["loss"] for record in records],
        "seconds": [BATCH / record["samples_per_second"] for record in records],
        "data_wait": [record["data_wait"] for record in records],
    }


def by_records(found: dict[str, list[float]]) -> dict[str, list[float]]:
    """What the bare loop saw of each step, as records of every few steps would have it."""
    starts = range(0, len(found["seconds"]), EVERY)
    return {
        "losses": found["losses"][EVERY - 1 :: EVERY],
        "seconds": [statistics.mean(found["seconds"][at : at + EVERY]) for at in starts],
    }


def bare(folder: Path, steps: int) -> dict[str, list[float]]:
    meeting = folder / "meeting"
    meeting.unlink(missing_ok=True)
    script = [sys.executable, str(HERE / "train_loop_bare.py")]
    ranks = [
        subprocess.Popen([*script, str(rank), str(WORKERS), str(folder), str(steps)], stdout=subprocess.PIPE, text=True)
        for rank in range(WORKERS)
    ]
    outputs = [rank.communicate()[0] for rank in ranks]
    if any(rank.returncode for rank in ranks):
        raise SystemExit("the bare loop failed")
    found: dict[str, list[float]] = json.loads(outputs[0].splitlines()[-1])
    return by_records(found)


def check_same_work(first: dict[str, list[float]], second: dict[str, list[float]]) -> float:
    pairs = zip(first["losses"][:1], second["losses"][:1], strict=True)
    worst = max(abs(a - b) / abs(b) for a, b in pairs)
    if not worst <= AGREE:
        raise SystemExit(f"the losses of the two loops differ by {worst:.1e}: they do not do the same work")
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    chosen = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    ratios, whole, seen, worst = [], [], [], 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pack(samples(KEPT * BATCH), open_store(folder / "shards"), per_shard=128)
        with session(num_cpus=4):
            tell_machine(worker_niceness())
            given_to_bare(config_of(folder, "first", chosen.steps), folder / "given.pt")
        for number in range(chosen.rounds):
            sides: list[Any] = [ours(folder, f"round-{number}", chosen.steps), bare(folder, chosen.steps)]
            worst = max(worst, check_same_work(*sides))
            medians = [statistics.median(side["seconds"][1:]) for side in sides]
            means = [statistics.mean(side["seconds"][1:]) for side in sides]
            ratios.append(medians[0] / medians[1])
            whole.append(means[0] / means[1])
            seen.append([round(one, 4) for one in (*medians, *means, statistics.mean(sides[0]["data_wait"][1:]))])
            print(f"# ours, bare: medians, means, data wait {seen[-1]}", file=sys.stderr, flush=True)
    figures = {
        "claim": "step_time_over_bare",
        "value": round(statistics.median(ratios), 3),
        "unit": "x",
        "peer": f"torch {torch.__version__} DDP + ZeroRedundancyOptimizer",
        "wanted": "<= 1.05",
        "spread": [round(min(ratios), 3), round(max(ratios), 3)],
        "means_with_checkpoints": round(statistics.median(whole), 3),
        "step_seconds": [one[:2] for one in seen],
        "losses_agree_to": f"{worst:.1e}",
    }
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
