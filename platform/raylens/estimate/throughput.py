"""The speed of a model's training step and of its forward pass, measured on this machine in fp32.

Shapes: B batch, S image size, T tokens.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch

from raylens.config import ModelConfig
from raylens.models import DualEncoder
from raylens.objectives import contrastive_loss

__all__ = ["Throughput", "throughput"]

END = 1
STEPS = 5


@dataclass(frozen=True)
class Throughput:
    """Pairs per second on this machine, in fp32."""

    device: str
    forward: float
    training: float
    """Speed of the whole step: forward pass, backward pass and update."""


def throughput(config: ModelConfig, batch: int, tokens: int) -> Throughput:
    """Measure the median speed of a few steps on random pairs, on the GPU if there is one."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = DualEncoder(config, end_id=END, mean=(0.5,) * 3, std=(0.5,) * 3).to(device)
    image_BSSC = torch.randint(0, 256, (batch, config.image.size, config.image.size, 3), dtype=torch.uint8).to(device)
    ids_BT = torch.randint(2, 500, (batch, tokens))
    ids_BT[:, -1] = END
    ids_BT = ids_BT.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)

    def train() -> None:
        image_BD, text_BD, log_scale, _ = model(image_BSSC, ids_BT)
        contrastive_loss(image_BD, text_BD, log_scale).backward()
        optimizer.step()
        optimizer.zero_grad()

    @torch.no_grad()
    def forward() -> None:
        model(image_BSSC, ids_BT)

    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    return Throughput(name, *(batch / _seconds(step, device) for step in (forward, train)))


def _seconds(step: Callable[[], None], device: torch.device) -> float:
    times = []
    for _ in range(STEPS + 1):
        began = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return median(times[1:])
