"""Forward and backward pass of the contrastive loss on one CPU process, beside OpenCLIP's ClipLoss.

    python -m benchmarks.objectives.contrastive [--figure docs/images/contrastive_memory.svg]

Each measurement is a fresh process: the first step gives the peak memory beyond the inputs, the second the time. Ours
and theirs take turns; a claim is the median over rounds of our figure divided by theirs in the same round. The largest
batch needs 17 GiB for the peer. Prints one JSON object a claim. Linux only (peak memory is read from /proc).
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.models.peers import open_clip
from raylens.objectives import contrastive_loss

D = 512
PEER = f"open_clip_torch {version('open_clip_torch')} ClipLoss"
ROUNDS = {8192: 5, 32_768: 3}
Figures = dict[str, float]
Round = dict[str, Figures]


def step(name: str, inputs: list[Tensor]) -> float:
    """One forward and backward pass; returns the loss."""
    image_BD, text_BD, log_scale = inputs
    if name == "open_clip":
        loss = open_clip().ClipLoss()(image_BD, text_BD, log_scale.exp())
    else:
        loss = contrastive_loss(image_BD, text_BD, log_scale, products="bf16" if name == "bf16" else "fp32")
    loss.backward()
    return float(loss.item())


def memory_kib(field: str) -> int:
    """A field of this process's status in KiB: VmRSS is the memory held now, VmHWM its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def measure_here(name: str, B: int, steps: int) -> Figures:
    torch.manual_seed(0)
    image_BD = functional.normalize(torch.randn(B, D), dim=1)
    text_BD = functional.normalize(image_BD + functional.normalize(torch.randn(B, D), dim=1) * 6, dim=1)
    inputs = [x.requires_grad_() for x in (image_BD, text_BD, torch.tensor(math.log(100.0)))]
    step(name, [x[:64].detach().requires_grad_() if x.ndim else x.detach().requires_grad_() for x in inputs])
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is held now
    held = memory_kib("VmRSS")
    loss = step(name, inputs)
    peak_mib = (memory_kib("VmHWM") - held) / 1024
    figures = {"peak_mib": peak_mib, "loss": loss}
    if steps > 1:
        start = time.perf_counter()
        step(name, inputs)
        figures["seconds"] = time.perf_counter() - start
    return figures


def measure(name: str, B: int, steps: int = 2) -> Figures:
    """The same in a fresh process; the first step gives the memory, the second the time."""
    command = [sys.executable, "-m", "benchmarks.objectives.contrastive", "--only", name, str(B), str(steps)]
    result: Figures = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    print(f"{name} at {B}: {result}", file=sys.stderr, flush=True)
    return result


def claim(name: str, wanted: str, rounds: list[Round], ours: str, figure: str) -> None:
    ratios = [each[ours][figure] / each["open_clip"][figure] for each in rounds]
    facts: dict[str, Any] = {
        "claim": name,
        "value": round(statistics.median(ratios), 4),
        "unit": "x",
        "peer": PEER,
        "wanted": wanted,
        "spread": [round(min(ratios), 4), round(max(ratios), 4)],
        figure: {key: round(statistics.median(each[key][figure] for each in rounds), 2) for key in (ours, "open_clip")},
    }
    print(json.dumps(facts), flush=True)


def in_turns(B: int) -> list[Round]:
    rounds = [{name: measure(name, B) for name in ("open_clip", "fp32", "bf16")} for _ in range(ROUNDS[B])]
    for each in rounds:
        losses = [figures["loss"] for figures in each.values()]
        if not math.isclose(min(losses), max(losses), rel_tol=1e-4):
            raise SystemExit(f"the losses differ at B = {B}: {each}")
    return rounds


def draw(path: Path) -> None:
    """Memory against batch for both, to a file."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "raylens"
    from matplotlib import pyplot as plt

    batches = {"open_clip": [2**n for n in range(10, 16)], "fp32": [2**n for n in range(10, 18)]}
    figure, axes = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    for name, label in (("open_clip", "OpenCLIP's ClipLoss"), ("fp32", "raylens, contrastive_loss")):
        peaks = [measure(name, B, 1)["peak_mib"] for B in batches[name]]
        axes.plot(batches[name], peaks, marker="o", label=label)
    axes.set(xscale="log", yscale="log", xlabel="batch", ylabel="peak memory over the inputs, MiB")
    axes.set_xticks(batches["fp32"], [f"{B:,}" for B in batches["fp32"]], rotation=30)
    axes.set_title(f"Forward and backward on a CPU, D = {D}, fp32")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs=3, metavar=("NAME", "BATCH", "STEPS"), help="one measurement in this process")
    parser.add_argument("--figure", type=Path, help="draw memory against batch to a file instead")
    arguments = parser.parse_args()
    if arguments.only:
        name, *numbers = arguments.only
        print(json.dumps(measure_here(name, *map(int, numbers))))
        return
    if arguments.figure:
        draw(arguments.figure)
        return
    claim("time_ratio_8192", "<= 0.6", in_turns(8192), "fp32", "seconds")
    rounds = in_turns(32_768)
    claim("memory_ratio_32768", f"<= {1 / 45:.4f}", rounds, "fp32", "peak_mib")
    claim("time_ratio_32768", "<= 0.42", rounds, "fp32", "seconds")
    claim("time_ratio_bf16_32768", "<= 0.22", rounds, "bf16", "seconds")
    most = measure("fp32", 131_072, 1)["peak_mib"] / 1024
    print(json.dumps({"claim": "memory_131072", "value": round(most, 2), "unit": "GiB", "wanted": "<= 2"}))


if __name__ == "__main__":
    main()
