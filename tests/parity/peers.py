"""OpenCLIP and Hugging Face's CLIPModel with random weights, as they run on a machine without a GPU."""

from functools import cache
from pathlib import Path
from typing import Any

import torch

__all__ = ["hf_model", "open_clip", "openclip_model", "randomised", "vocabulary_file"]


@cache
def _operators() -> Any:
    """Of torchvision, which has no CPU build; its Python part imports once these are declared."""
    if torch.version.cuda is not None:
        return None
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library  # its operators go with it: `cache` keeps both


def open_clip() -> Any:
    """The package."""
    _operators()
    import open_clip

    return open_clip


def vocabulary_file() -> Path:
    """OpenAI's merges, as the package brings them."""
    return Path(open_clip().__file__).parent / "bpe_simple_vocab_16e6.txt.gz"


def openclip_model(embed_dim: int, vision: dict[str, Any], text: dict[str, Any], **more: Any) -> Any:
    """OpenCLIP's CLIP of these settings."""
    return randomised(open_clip().model.CLIP(embed_dim, vision, text, **more))


def hf_model(vision: dict[str, Any], text: dict[str, Any], **more: Any) -> Any:
    """transformers' CLIPModel of these settings."""
    _operators()  # transformers looks at torchvision too
    from transformers import CLIPConfig, CLIPModel

    return randomised(CLIPModel(CLIPConfig(vision_config=vision, text_config=text, **more)))


def randomised(model: Any) -> Any:
    """Every number random, so that a forgotten bias, gain or statistic shows."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if "running_var" in name:
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            elif tensor.is_floating_point() and tensor.isfinite().all():
                spread = 0.5 / max(1, tensor[0].numel()) ** 0.5 if tensor.ndim > 1 else 0.2
                centre = 1.0 if name.endswith("weight") and tensor.ndim == 1 else 0.0
                tensor.copy_(centre + spread * torch.randn(tensor.shape, generator=generator))
        model.logit_scale.fill_(3.0)
    return model.eval()
