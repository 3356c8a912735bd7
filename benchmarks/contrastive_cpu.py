"""Forward and backward pass of the contrastive loss on one CPU process, against the dense formulas.

    python benchmarks/contrastive_cpu.py

Peers, written out below: the dense formula as it is usually implemented (two products, two B x B logit
matrices), and the dense formula at its best (one product, its transpose for the other direction). Each
measurement is a fresh process: the first step gives the peak memory beyond the inputs, the second the time.
The three take turns; a claim is the median over rounds of the peer's figure divided by ours in the same round.
Prints one JSON object a claim. Linux only (peak memory is read from /proc).
"""

import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from raylens.objectives import contrastive_loss

D = 512
ROUNDS = 3
WANTED = {
    "contrastive_cpu_4096_memory": 3.0,
    "contrastive_cpu_4096_time": 1.5,
    "contrastive_cpu_8192_memory": 5.0,
    "contrastive_cpu_8192_time": 1.5,
    "contrastive_cpu_8192_memory_one_product": 4.0,
    "contrastive_cpu_8192_time_one_product": 1.0,
}


def dense(image_BD: Tensor, text_BD: Tensor, log_scale: Tensor) -> Tensor:
    """Logits for images and for texts by a product each; the mean of their cross-entropies."""
    scale = log_scale.exp()
    for_image_BB = scale * image_BD @ text_BD.T
    for_text_BB = scale * text_BD @ image_BD.T
    target_B = torch.arange(len(image_BD))
    return (functional.cross_entropy(for_image_BB, target_B) + functional.cross_entropy(for_text_BB, target_B)) / 2


def one_product(image_BD: Tensor, text_BD: Tensor, log_scale: Tensor) -> Tensor:
    """The same with one product, whose transpose serves the texts."""
    logits_BB = log_scale.exp() * image_BD @ text_BD.T
    target_B = torch.arange(len(image_BD))
    return (functional.cross_entropy(logits_BB, target_B) + functional.cross_entropy(logits_BB.T, target_B)) / 2


LOSSES: dict[str, Callable[..., Tensor]] = {"raylens": contrastive_loss, "dense": dense, "one_product": one_product}


def memory_kib(field: str) -> int:
    """A field of this process's status in KiB: VmRSS is the memory held now, VmHWM its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def step(name: str, inputs: list[Tensor]) -> float:
    """One forward and backward pass; returns the loss."""
    loss = LOSSES[name](*inputs)
    loss.backward()
    return loss.item()


def measure_here(name: str, B: int) -> dict[str, float]:
    torch.manual_seed(0)
    image_BD = functional.normalize(torch.randn(B, D), dim=1)
    text_BD = functional.normalize(image_BD + functional.normalize(torch.randn(B, D), dim=1) * 6, dim=1)
    inputs = [x.requires_grad_() for x in (image_BD, text_BD, torch.tensor(math.log(100.0)))]
    step(name, [x[:64].detach().requires_grad_() if x.ndim else x for x in inputs])  # loads the libraries
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is held now
    held = memory_kib("VmRSS")
    loss = step(name, inputs)
    peak_mib = (memory_kib("VmHWM") - held) / 1024
    start = time.perf_counter()
    step(name, inputs)
    return {"seconds": time.perf_counter() - start, "peak_mib": peak_mib, "loss": loss}


def measure(name: str, B: int) -> dict[str, float]:
    """The same in a fresh process."""
    command = [sys.executable, __file__, name, str(B)]
    result: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return result


def claim(name: str, rounds: list[dict[str, dict[str, float]]], peer: str, figure: str) -> None:
    ratios = [each[peer][figure] / each["raylens"][figure] for each in rounds]
    medians = {loss: statistics.median(each[loss][figure] for each in rounds) for loss in (peer, "raylens")}
    print(
        json.dumps(
            {
                "claim": name,
                "value": round(statistics.median(ratios), 2),
                "unit": "x",
                "peer": f"{peer.replace('_', ' ')} formula",
                "wanted": f">= {WANTED[name]:g}",
                "spread": [round(min(ratios), 2), round(max(ratios), 2)],
                figure: {loss: round(value, 2) for loss, value in medians.items()},
            }
        ),
        flush=True,
    )


def main() -> None:
    for B in (4096, 8192):
        rounds = [{name: measure(name, B) for name in LOSSES} for _ in range(ROUNDS)]
        for each in rounds:
            losses = [each[name]["loss"] for name in LOSSES]
            if not math.isclose(min(losses), max(losses), rel_tol=1e-5):
                raise SystemExit(f"the losses differ at B = {B}: {each}")
        for peer, suffix in (("dense", ""), ("one_product", "_one_product")):
            for figure, kind in (("peak_mib", "memory"), ("seconds", "time")):
                name = f"contrastive_cpu_{B}_{kind}{suffix}"
                if name in WANTED:
                    claim(name, rounds, peer, figure)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(measure_here(sys.argv[1], int(sys.argv[2]))))
    else:
        main()
