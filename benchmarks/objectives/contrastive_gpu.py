"""Forward and backward pass of the contrastive loss on one GPU, against OpenCLIP's formula.

    python benchmarks/objectives/contrastive_gpu.py [--max-batch 1048576] [--width 512 768] [--seconds 480]

Needs torch and triton alone. The peer, written out below, is dense: two products, two B x B logit matrices, and
autograd. First loss and gradients are compared with fp64 on the device. Then each precision, width and batch is
measured in one process: bf16 (the peer under autocast) and TF32. FLOP/s count ``8 b B D``, what the loss needs at least
when it keeps no matrix, for both; the share is of the rate of one large ``torch.mm`` in the same run. Prints a table
to stderr and one JSON object a claim to stdout; exits with 2 where there is no GPU, and with 1 where a check fails.
"""

import argparse
import datetime
import gc
import importlib.util
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

if importlib.util.find_spec("raylens") is None:
    sys.path.insert(0, str(Path(__file__).parents[2] / "platform"))

from raylens.objectives import contrastive_loss

Precision = Literal["fp32", "tf32", "bf16"]
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]

BATCHES = [2**power for power in range(13, 21)]
MATRIX = 8192
# Of the loss and of the three gradients in the 2-norm, relative. Rounded operands move a logit of 100 by about
# 100 * 2^-8 / sqrt(D) in bf16 and by an eighth of that in TF32, at random.
LIMITS: dict[Precision, tuple[float, float]] = {"fp32": (1e-5, 1e-4), "tf32": (1e-3, 1e-2), "bf16": (2e-3, 3e-2)}
MEASURED: tuple[Precision, ...] = ("bf16", "tf32")
RATIOS_AT, SHARE_AT = (8192, 32768, 65536), (32768, 2**20)
REPEATS, REPEAT_SECONDS = 20, 2.0
WARM_FROM = 2**16
"""From this batch on a first pass that takes long does so by itself: smaller ones have tuned the kernels."""
WANTED = {"time": "<= 0.5", "memory": "<= 0.1", "share": ">= 0.5"}
PEER = f"OpenCLIP's formula, dense autograd, torch {torch.__version__}"


@dataclass(frozen=True)
class Figures:
    """Of one forward and backward pass."""

    ms: float
    peak_mib: float
    """Beyond the inputs; the gradients of the embeddings are in it."""
    loss: float


def openclip(image_BD: Tensor, text_BD: Tensor, log_scale: Tensor) -> Tensor:
    """Logits for images and for texts by a product each; the mean of their cross-entropies."""
    scale = log_scale.exp()
    logits_per_image = scale * image_BD @ text_BD.T
    logits_per_text = scale * text_BD @ image_BD.T
    target_B = torch.arange(len(image_BD), device=image_BD.device)
    return (
        functional.cross_entropy(logits_per_image, target_B) + functional.cross_entropy(logits_per_text, target_B)
    ) / 2


def ours(precision: Precision) -> Loss:
    return lambda image_BD, text_BD, log_scale: contrastive_loss(image_BD, text_BD, log_scale, products=precision)


def peer(precision: Precision) -> Loss:
    def loss(image_BD: Tensor, text_BD: Tensor, log_scale: Tensor) -> Tensor:
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
            return openclip(image_BD, text_BD, log_scale)

    return loss


def inputs(B: int, D: int) -> list[Tensor]:
    """Pairs with a cosine of about 0.16 at a scale of 100, in fp32."""
    generator = torch.Generator("cuda").manual_seed(0)
    image_BD = functional.normalize(torch.randn(B, D, device="cuda", generator=generator), dim=1)
    noise_BD = functional.normalize(torch.randn(B, D, device="cuda", generator=generator), dim=1)
    text_BD = functional.normalize(noise_BD.mul_(6).add_(image_BD), dim=1)
    del noise_BD
    return [x.requires_grad_() for x in (image_BD, text_BD, torch.tensor(math.log(100.0), device="cuda"))]


def step(loss: Loss, leaves: list[Tensor]) -> tuple[Tensor, float]:
    """One forward and backward pass: the loss, and milliseconds of device time."""
    for leaf in leaves:
        leaf.grad = None
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    value = loss(*leaves)
    value.backward()
    end.record()
    end.synchronize()
    return value.detach(), start.elapsed_time(end)


def relative_error(measured: Tensor | None, wanted: Tensor | None) -> float:
    """Of the whole tensor, in the 2-norm."""
    assert measured is not None
    assert wanted is not None
    return float((measured.double() - wanted).norm() / wanted.norm())


def check(B: int, D: int) -> bool:
    """Loss and gradients of every precision against the formula in fp64 on the device."""
    leaves = inputs(B, D)
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    truth, _ = step(openclip, exact)
    passed = True
    for precision, (loss_limit, gradient_limit) in LIMITS.items():
        allow_tf32(precision)
        value, _ = step(ours(precision), leaves)
        errors = [relative_error(x.grad, y.grad) for x, y in zip(leaves, exact, strict=True)]
        loss_error = abs(float(value) / float(truth) - 1)
        good = loss_error <= loss_limit and max(errors) <= gradient_limit  # not where one is NaN
        passed &= good
        gradients = " ".join(
            f"{name} {error:.1e}" for name, error in zip(("image", "text", "scale"), errors, strict=True)
        )
        say(f"{precision} B = {B:>6,} D = {D:>4} loss {loss_error:.1e} {gradients} {'ok' if good else 'WRONG'}")
    return passed


def allow_tf32(precision: Precision) -> None:
    """In torch's own products, the peer's above all."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")


def matrix_rate(precision: Precision) -> float:
    """TFLOP/s of one large product."""
    allow_tf32(precision)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(MATRIX, MATRIX, device="cuda", dtype=dtype) for _ in range(2))
    times: list[float] = []
    for _ in range(20):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(5):
            torch.mm(a, b)
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 5)
    return float(2 * MATRIX**3 / statistics.median(times[5:]) / 1e9)


def measure(loss: Loss, leaves: list[Tensor]) -> Figures | None:
    """Medians, or None where it does not fit. Where a pass takes long, the first is the only one."""
    for leaf in leaves:
        leaf.grad = None
    held = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    try:
        value, ms = step(loss, leaves)
        if ms < REPEAT_SECONDS * 1e3 or len(leaves[0]) < WARM_FROM:  # it has also tuned and loaded
            torch.cuda.reset_peak_memory_stats()
            value, ms = step(loss, leaves)
            times = [step(loss, leaves)[1] for _ in range(max(1, min(REPEATS, int(REPEAT_SECONDS * 1e3 / ms))))]
            ms = statistics.median(times)
        return Figures(ms, (torch.cuda.max_memory_allocated() - held) / 2**20, float(value))
    except torch.OutOfMemoryError:
        return None


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def claim(name: str, value: float, unit: str, against: str, **more: float) -> None:
    about = {
        "claim": name,
        "value": float(f"{value:.3g}"),
        "unit": unit,
        "peer": against,
        "wanted": WANTED[name.split("_")[1]],
        **{key: float(f"{figure:.4g}") for key, figure in more.items()},
        "device": torch.cuda.get_device_name(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    print(json.dumps(about), flush=True)


def compare(B: int, D: int, precision: Precision, rate: float) -> float:
    """Measures both, prints a line and the claims; returns our milliseconds."""
    allow_tf32(precision)
    leaves = inputs(B, D)
    mine = measure(ours(precision), leaves)
    theirs = measure(peer(precision), leaves)
    gc.collect()
    torch.cuda.empty_cache()
    label = f"{precision} {D:>5} {B:>9,}"
    if mine is None:
        say(f"{label}  does not fit")
        return math.inf
    flops = 8 * B * B * D / mine.ms / 1e9
    line = f"{label} {mine.ms:>10.2f} ms {flops:>5.0f} TFLOP/s {flops / rate:>5.0%} {mine.peak_mib:>7.0f} MiB"
    if theirs is None:
        say(f"{line} | dense: does not fit")
    else:
        say(
            f"{line} | dense {theirs.ms:>9.2f} ms {theirs.peak_mib:>7.0f} MiB"
            f" | ratio {mine.ms / theirs.ms:.2f}, loss {mine.loss:.6f} and {theirs.loss:.6f}"
        )
    claims(f"{B}_{precision}_{D}", mine, theirs, flops / rate)
    return mine.ms


def claims(case: str, mine: Figures, theirs: Figures | None, share: float) -> None:
    B = int(case.split("_")[0])
    if theirs is not None and B in RATIOS_AT:
        claim(f"gpu_time_ratio_{case}", mine.ms / theirs.ms, "x", PEER, ours_ms=mine.ms, peer_ms=theirs.ms)
        memory = mine.peak_mib / theirs.peak_mib
        claim(f"gpu_memory_ratio_{case}", memory, "x", PEER, ours_mib=mine.peak_mib, peer_mib=theirs.peak_mib)
    if B in SHARE_AT:
        about = f"torch.mm of {MATRIX} x {MATRIX}, torch {torch.__version__}"
        claim(f"gpu_share_{case}", share, "of the rate", about, ours_ms=mine.ms, ours_mib=mine.peak_mib)


def check_all() -> None:
    """Loss and gradients at all usual widths, and once at a size for which the kernels are tuned anew."""
    cases = [(4096, 512), (4096, 640), (4096, 768), (4096, 1024)]
    if torch.cuda.mem_get_info()[0] > 32 * 2**30:
        cases.append((16384, 512))
    say("Relative errors against fp64")
    if False in {check(B, D) for B, D in cases}:  # all of them, that the table is complete
        raise SystemExit("a loss or a gradient is further from fp64 than LIMITS allow: nothing was measured")
    gc.collect()
    torch.cuda.empty_cache()


def main() -> None:
    parser = argparse.ArgumentParser(description="The contrastive loss on one GPU, against OpenCLIP's formula.")
    parser.add_argument("--max-batch", type=int, default=max(BATCHES), help="largest B measured")
    parser.add_argument("--width", type=int, nargs="+", default=[512, 768], help="D, one or more")
    parser.add_argument(
        "--seconds", type=float, default=480, help="time for everything; what would not end is left out"
    )
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("contrastive_gpu: torch finds no CUDA device; run it on a machine with a GPU", file=sys.stderr)
        raise SystemExit(2)
    end = time.monotonic() + options.seconds
    check_all()
    rates = {precision: matrix_rate(precision) for precision in MEASURED}
    say(f"{torch.cuda.get_device_name()}: " + ", ".join(f"{name} {rate:.0f} TFLOP/s" for name, rate in rates.items()))
    last_ms: dict[tuple[Precision, int], float] = {}
    for B in (B for B in BATCHES if options.max_batch >= B):
        for case in [(precision, D) for precision in MEASURED for D in options.width]:
            precision, D = case
            if time.monotonic() + 4 * last_ms.get(case, 0.0) / 1e3 > end:
                say(f"{precision} {D:>5} {B:>9,}  left out: no time")
                continue
            last_ms[case] = compare(B, D, precision, rates[precision])


if __name__ == "__main__":
    main()
