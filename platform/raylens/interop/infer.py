"""Inference of an architecture from a state dict, whose shapes determine widths and depths."""

import math
import re
from collections.abc import Mapping

from torch import Tensor

from raylens.config import Activation, ModelConfig, ResNetConfig, TextTransformerConfig, VisionTransformerConfig
from raylens.errors import BundleError

__all__ = ["infer_config"]

HEAD_WIDTH = 64


def infer_config(weights: Mapping[str, Tensor], activation: Activation) -> ModelConfig:
    """Infer the configuration of weights under our names; heads are 64 wide, as in every model of the paper.

    Raises:
        BundleError: a tensor that determines it is missing, or has a shape that no such model has.
    """
    try:
        text_projection, positions = weights["text.text_projection"], weights["text.positional_embedding"]
        width = text_projection.shape[0]
        text = TextTransformerConfig(
            context=positions.shape[0],
            vocab=weights["text.token_embedding.weight"].shape[0],
            width=width,
            layers=_depth(weights, "text.transformer"),
            heads=max(1, width // HEAD_WIDTH),
        )
        image = _resnet(weights) if "visual.attnpool.c_proj.weight" in weights else _vit(weights)
        return ModelConfig(
            embed_dim=text_projection.shape[1],
            activation=activation,
            logit_bias="logit_bias" in weights,
            image=image,
            text=text,
        )
    except KeyError as error:
        some = ", ".join(sorted(weights)[:3])
        raise BundleError(f"not a CLIP model of a known kind: {error} is missing (it has {some}, ...)") from None
    except (ValueError, IndexError) as error:
        raise BundleError(f"not a CLIP model of a known kind: {' '.join(str(error).split())}") from None


def _vit(weights: Mapping[str, Tensor]) -> VisionTransformerConfig:
    kernel, positions = weights["visual.conv1.weight"], weights["visual.positional_embedding"]
    width, patch = kernel.shape[0], kernel.shape[-1]
    return VisionTransformerConfig(
        size=math.isqrt(positions.shape[0] - 1) * patch,
        patch=patch,
        width=width,
        layers=_depth(weights, "visual.transformer"),
        heads=max(1, width // HEAD_WIDTH),
    )


def _resnet(weights: Mapping[str, Tensor]) -> ResNetConfig:
    cells = math.isqrt(weights["visual.attnpool.positional_embedding"].shape[0] - 1)
    first, second, third, fourth = (_depth(weights, f"visual.layer{number}") for number in range(1, 5))
    return ResNetConfig(
        size=cells * 32,
        blocks=(first, second, third, fourth),
        width=weights["visual.layer1.0.conv1.weight"].shape[0],
    )


def _depth(weights: Mapping[str, Tensor], prefix: str) -> int:
    pattern = re.compile(rf"{re.escape(prefix)}\.(\d+)\.")
    return len({match[1] for name in weights if (match := pattern.match(name))})
