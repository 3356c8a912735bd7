"""What a model costs: parameters and operations by tower, memory of a sample, and steps measured here.

Shapes: B batch, S image size, T tokens.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from raylens.config import ModelConfig
from raylens.models.dual_encoder import DualEncoder
from raylens.models.weights import unfilled
from raylens.objectives import contrastive_loss

__all__ = ["Costs", "Throughput", "costs", "throughput"]

END = 1
STEPS = 5


@dataclass(frozen=True)
class Costs:
    """What follows from the architecture alone."""

    image_parameters: int
    text_parameters: int
    image_gflops: float
    """Of one image, forward; a multiplication and an addition are two."""
    text_gflops: float
    """Of one text of so many tokens."""
    training_bytes: int
    """What a pair keeps for the backward pass, in fp32, without checkpointed blocks."""


@dataclass(frozen=True)
class Throughput:
    """Pairs a second on this machine, in fp32."""

    device: str
    forward: float
    training: float
    """Forward, backward and an optimiser's step."""


def costs(config: ModelConfig, tokens: int) -> Costs:
    """Counted on a model without memory ("meta"), so that any size can be asked for.

    Args:
        config: the architecture.
        tokens: of a text, marks included.
    """
    with unfilled():
        model = DualEncoder(config, end_id=END, mean=(0.5,) * 3, std=(0.5,) * 3)
    with torch.device("meta"):
        # BatchNorm has no statistics of one image whose features are one by one.
        images = 2 if config.image.kind == "resnet" else 1
        pixels = torch.zeros(images, 3, config.image.size, config.image.size)
    ids = torch.full((1, tokens), 5)
    ids[0, -1] = END
    device = torch.device("meta")
    if config.text.kind == "cbow":
        # It picks the words that count, and which those are nothing on "meta" says.
        device = torch.device("cpu")
        model.text.to_empty(device=device)
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        with FlopCounterMode(display=False) as of_image:
            model.visual(pixels)
        of_images = _saved(kept, model)
        kept.clear()
        with FlopCounterMode(display=False) as of_text:
            model.text(ids.to(device), torch.tensor([tokens - 1]))
    return Costs(
        image_parameters=_count(model.visual),
        text_parameters=_count(model.text),
        image_gflops=of_image.get_total_flops() / images / 1e9,
        text_gflops=of_text.get_total_flops() / 1e9,
        training_bytes=of_images // images + _saved(kept, model),
    )


def _saved(kept: dict[int, Tensor], model: DualEncoder) -> int:
    """Bytes that are kept for the way back, beside the parameters and views of them."""
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    return sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in own)


def throughput(config: ModelConfig, batch: int, tokens: int) -> Throughput:
    """Median of a few steps on random pairs, on the GPU if there is one."""
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


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
