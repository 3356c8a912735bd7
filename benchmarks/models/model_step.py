"""A training step of ViT-B/32 beside open_clip_torch: same process, weights, batch, loss and optimiser.

Forward, backward and AdamW on the same pairs; ours and theirs take turns. Captions have the lengths of
`caption_lengths`. In bf16 ours has weights in bf16 and fp32 masters; theirs runs under autocast, as its trainer does.
Prints one JSON object a claim.
"""

import argparse
import importlib.metadata
import json
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.models.peers import caption_lengths, ids_of, open_clip, openclip_config
from raylens.inputs.preprocess import CLIP_MEAN, CLIP_STD
from raylens.interop.names import from_openclip
from raylens.models import DualEncoder
from raylens.objectives import contrastive_loss

END = 49_407
OPTIM: dict[str, Any] = {"lr": 1e-5, "betas": (0.9, 0.98), "eps": 1e-6, "weight_decay": 0.2, "fused": True}
Step = Callable[[], float]


class Masters:
    """AdamW on fp32 copies of weights that the model then has in bf16."""

    def __init__(self, model: DualEncoder) -> None:
        # Before the cast: copies of rounded weights would all begin in the middle of a rounding step, and the first
        # small updates change nothing at all.
        self.masters: list[Tensor] = [parameter.detach().clone().requires_grad_() for parameter in model.parameters()]
        model.multiply_in(torch.bfloat16)
        self.weights: list[Tensor] = list(model.parameters())
        self.optimizer = torch.optim.AdamW(self.masters, **OPTIM)

    def step(self) -> None:
        for weight, master in zip(self.weights, self.masters, strict=True):
            assert weight.grad is not None
            master.grad, weight.grad = weight.grad.float(), None
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_copy_(self.weights, self.masters)


def ours(theirs: Any, name: str, pixels: Tensor, ids: Tensor, *, bf16: bool) -> Step:
    model = DualEncoder(openclip_config(name), end_id=END, mean=CLIP_MEAN, std=CLIP_STD)
    model.load_state_dict(from_openclip({key: value.clone() for key, value in theirs.state_dict().items()}))
    model.to(pixels.device).train()
    optimizer: Any = Masters(model) if bf16 else torch.optim.AdamW(model.parameters(), **OPTIM)

    def step() -> float:
        model.zero_grad()
        image_BD, text_BD, log_scale, _ = model(pixels, ids)
        loss = contrastive_loss(image_BD, text_BD, log_scale)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def peer(theirs: Any, pixels: Tensor, ids: Tensor, *, bf16: bool) -> Step:
    optimizer = torch.optim.AdamW(theirs.parameters(), **OPTIM)
    criterion = open_clip().ClipLoss()
    mean, std = (torch.tensor(of, device=pixels.device).view(3, 1, 1) for of in (CLIP_MEAN, CLIP_STD))

    def step() -> float:
        optimizer.zero_grad()
        image = (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std
        with torch.autocast(pixels.device.type, dtype=torch.bfloat16, enabled=bf16):
            image_BD = functional.normalize(theirs.visual(image), dim=-1)
            text_BD = theirs.encode_text(ids, normalize=True)
            loss = criterion(image_BD, text_BD, theirs.logit_scale.exp())
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def timed(step: Step, device: torch.device) -> tuple[float, float]:
    began = time.perf_counter()
    loss = step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began, loss


def compare(name: str, batch: int, steps: int, *, bf16: bool, device: torch.device) -> dict[str, Any]:
    torch.manual_seed(0)
    theirs = open_clip().create_model(name).to(device).train()
    size = openclip_config(name).image.size
    pixels = torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8).to(device)
    ids = ids_of(caption_lengths(batch)).to(device)
    one, other = ours(theirs, name, pixels, ids, bf16=bf16), peer(theirs, pixels, ids, bf16=bf16)
    rows = [(*timed(one, device), *timed(other, device)) for _ in range(steps + 1)]
    first = rows[0]
    ratios = [row[2] / row[0] for row in rows[1:]]
    return {
        "ratio": median(ratios),
        "low": min(ratios),
        "high": max(ratios),
        "ours": batch / median(row[0] for row in rows[1:]),
        "theirs": batch / median(row[2] for row in rows[1:]),
        "losses": (first[1], first[3]),
        "later": (rows[-1][1], rows[-1][3]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["ViT-B-32-quickgelu"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=9)
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(2)
    wanted = {"fp32": ">= 1.4", "bf16": ">= 1.5"}
    version = importlib.metadata.version("open_clip_torch")
    for name in options.models:
        for precision in options.precisions:
            found = compare(name, options.batch, options.steps, bf16=precision == "bf16", device=device)
            claim = {
                "claim": f"vs_open_clip_{precision}",
                "value": round(found["ratio"], 2),
                "unit": "x",
                "peer": f"open_clip_torch {version}",
                "wanted": wanted[precision],
                "model": name,
                "rounds": [round(found["low"], 2), round(found["high"], 2)],
                "images_per_second": [round(found["ours"], 2), round(found["theirs"], 2)],
                "first_loss": [round(loss, 6) for loss in found["losses"]],
                "last_loss": [round(loss, 6) for loss in found["later"]],
                "batch": options.batch,
                "device": str(device),
            }
            print(json.dumps(claim), flush=True)


if __name__ == "__main__":
    main()
