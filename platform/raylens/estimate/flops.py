"""Floating-point operations and parameters of a model, and the share of a GPU's peak rate that a run reaches.

The utilisation is that of Chowdhery et al. 2022, appendix B.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from raylens.config import ModelConfig, RunConfig
from raylens.models import DualEncoder, unfilled

__all__ = ["Costs", "ModelFlops", "model_costs", "peak_flops"]

END = 1
PEAKS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
    "V100": 125e12,
}
"""Dense bf16 (V100: fp16) operations per second of the vendors; the first name within a GPU's name applies."""


@dataclass(frozen=True)
class Costs:
    """The costs of a model that depend on its architecture alone."""

    image_parameters: int
    text_parameters: int
    image_gflops: float
    """Operations of the forward pass of an image, in 1e9; a multiplication and an addition are two."""
    text_gflops: float
    """Operations of the forward pass of a text, in 1e9."""
    training_bytes: int
    """Bytes that a pair keeps for the backward pass, in fp32, without checkpointed blocks."""


def model_costs(config: ModelConfig, tokens: int) -> Costs:
    """Count the costs of a model on a copy without memory (device "meta"), so that any size can be counted.

    Args:
        config: the architecture.
        tokens: the tokens of a text, start and end included.
    """
    with unfilled():
        model = DualEncoder(config, end_id=END, mean=(0.5,) * 3, std=(0.5,) * 3)
    with torch.device("meta"):
        # BatchNorm has no statistics for a single image whose feature maps have one element.
        images = 2 if config.image.kind == "resnet" else 1
        pixels = torch.zeros(images, 3, config.image.size, config.image.size)
    ids = torch.full((1, tokens), 5)
    ids[0, -1] = END
    device = torch.device("meta")
    if config.text.kind == "cbow":
        # It selects words by their values, which device "meta" does not have.
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
    """Return the bytes kept for the backward pass, without parameters and views of them."""
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    return sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in own)


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def peak_flops(device_name: str) -> float | None:
    """Return the peak operations per second of a GPU by its name; None if it is not known."""
    return next((peak for name, peak in PEAKS.items() if name in device_name), None)


class ModelFlops:
    """The operations that a run's model needs: backward twice as many as forward. Recomputed ones do not count."""

    def __init__(self, config: RunConfig, device_name: str | None) -> None:
        """Prepare for a GPU by its name, or for a CPU if the name is None."""
        self._config = config
        self.peak = None if device_name is None else peak_flops(device_name)
        self._costs: Costs | None = None

    def of_pair(self, tokens: float) -> float:
        """Return the operations of a training step per pair; captions are taken to be as long as at the first call."""
        towers = self._config.towers
        if self._costs is None:
            self._costs = model_costs(self._config.model, max(2, round(tokens)))
        image = self._costs.image_gflops * (1.0 - towers.patch_dropout) * (1 if towers.lock_image else 3)
        text = self._costs.text_gflops * (1 if towers.lock_text else 3)
        return 1e9 * (image + text)
