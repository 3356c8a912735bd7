"""Conversion of OpenCLIP's configuration files and names of tensors, in both directions.

OpenAI's names are the same. Ours differ in ``resblocks``, in a prefix of the text tower, and in the scale's shape.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from raylens.config import ModelConfig, ResNetConfig, TextTransformerConfig, VisionTransformerConfig
from raylens.errors import BundleError
from raylens.inputs import CLIP_MEAN, CLIP_STD, Preprocess
from raylens.interop.json_config import checked, number, section

__all__ = ["from_openclip", "openclip_config", "openclip_json", "openclip_preprocess", "to_openclip"]

NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask")
"""The entries of OpenAI's archives that only describe the model."""
SCALARS = ("logit_scale", "logit_bias")
TEXT = ("token_embedding.", "positional_embedding", "transformer.", "ln_final.", "text_projection")
HEAD_WIDTH = 64
WHAT = "open_clip_config.json"
# Settings that change nothing, or change nothing at these values.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "mlp_ratio": (4, 4.0),
    "ls_init_value": (None,),
    "patch_dropout": (0, 0.0),
    "attentional_pool": (False,),
    "no_ln_pre": (False,),
    "pos_embed_type": ("learnable",),
    "final_ln_after_pool": (False,),
    "pool_type": ("tok", "argmax"),
    "output_tokens": (False,),
    "act_kwargs": (None, {}),
    "norm_kwargs": (None, {}),
    "timm_model_name": (None, ""),
    "hf_model_name": (None, ""),
    "embed_cls": (False,),
    "pad_id": (0,),
    "no_causal_mask": (False,),
    "proj_bias": (False,),
    "proj_type": ("linear",),
    "hf_tokenizer_name": (None, ""),
    "tokenizer_kwargs": (None, {}),
}


def openclip_config(tree: Mapping[str, Any]) -> ModelConfig:
    """Convert the ``model_cfg`` of `open_clip_config.json`, or such an object by itself.

    Raises:
        BundleError: a key is missing, or the architecture is one that raylens does not have.
    """
    model = section(tree, "model_cfg", WHAT) if "model_cfg" in tree else tree
    vision, text = section(model, "vision_cfg", WHAT), section(model, "text_cfg", WHAT)
    known = {"image_size", "layers", "width", "patch_size", "head_width"}
    checked(vision, known, NEUTRAL, f"{WHAT}: model_cfg.vision_cfg")
    known = {"context_length", "vocab_size", "width", "heads", "layers"}
    checked(text, known, NEUTRAL, f"{WHAT}: model_cfg.text_cfg")
    width, layers = number(vision, "width", 768), vision.get("layers", 12)
    size = number(vision, "image_size", 224)
    image: ResNetConfig | VisionTransformerConfig
    if isinstance(layers, list):
        image = ResNetConfig(size=size, blocks=tuple(layers), width=width)
    else:
        heads = width // number(vision, "head_width", HEAD_WIDTH)
        image = VisionTransformerConfig(
            size=size, patch=number(vision, "patch_size", 16), width=width, layers=layers, heads=heads
        )
    return ModelConfig(
        embed_dim=number(model, "embed_dim"),
        activation="quick_gelu" if model.get("quick_gelu") else "gelu",
        logit_bias=model.get("init_logit_bias") is not None,
        image=image,
        text=TextTransformerConfig(
            context=number(text, "context_length", 77),
            vocab=number(text, "vocab_size", 49_408),
            width=number(text, "width", 512),
            heads=number(text, "heads", 8),
            layers=number(text, "layers", 12),
        ),
    )


def openclip_preprocess(tree: Mapping[str, Any], size: int) -> Preprocess:
    """Convert the ``preprocess_cfg`` of `open_clip_config.json`.

    Raises:
        BundleError: its geometry is one that raylens does not have.
    """
    settings = tree.get("preprocess_cfg") or {}
    neutral = {"mode": ("RGB",), "interpolation": ("bicubic",), "resize_mode": ("shortest",), "fill_color": (0,)}
    checked(settings, {"mean", "std", "size"}, neutral, f"{WHAT}: preprocess_cfg")
    return Preprocess(size=size, mean=tuple(settings.get("mean", CLIP_MEAN)), std=tuple(settings.get("std", CLIP_STD)))


def openclip_json(config: ModelConfig, preprocess: Preprocess) -> dict[str, Any]:
    """Return the `open_clip_config.json` that `openclip_config` and `openclip_preprocess` read.

    Raises:
        BundleError: OpenCLIP has no such text tower, or its heads have another width.
    """
    text = config.text
    if not isinstance(text, TextTransformerConfig):
        raise BundleError(f"OpenCLIP has no text tower of kind {text.kind!r}: export is for text transformers")
    model: dict[str, Any] = {
        "embed_dim": config.embed_dim,
        "quick_gelu": config.activation == "quick_gelu",
        "vision_cfg": _vision(config.image),
        "text_cfg": {
            "context_length": text.context,
            "vocab_size": text.vocab,
            "width": text.width,
            "heads": text.heads,
            "layers": text.layers,
        },
    }
    if config.logit_bias:
        model["init_logit_bias"] = -10
    mean, std = list(preprocess.mean), list(preprocess.std)
    shown = {"mean": mean, "std": std, "interpolation": "bicubic", "resize_mode": "shortest"}
    return {"model_cfg": model, "preprocess_cfg": shown}


def _vision(tower: VisionTransformerConfig | ResNetConfig) -> dict[str, Any]:
    if isinstance(tower, ResNetConfig):
        return {"image_size": tower.size, "layers": list(tower.blocks), "width": tower.width, "patch_size": None}
    return {
        "image_size": tower.size,
        "layers": tower.layers,
        "width": tower.width,
        "head_width": tower.width // tower.heads,
        "patch_size": tower.patch,
    }


def from_openclip(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert the state of an OpenAI or OpenCLIP model to ours. Unknown names stay as they are."""
    weights = {}
    for name, tensor in tensors.items():
        if name in NOT_WEIGHTS or name == "text.attn_mask":
            continue
        new = f"text.{name}" if name.startswith(TEXT) else name
        new = re.sub(r"\.transformer\.resblocks\.", ".transformer.", new)
        weights[new] = tensor.reshape(1) if name in SCALARS else tensor
    return weights


def to_openclip(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert our state to that of OpenCLIP."""
    tensors = {}
    for name, tensor in weights.items():
        new = re.sub(r"^(visual|text)\.transformer\.", r"\1.transformer.resblocks.", name).removeprefix("text.")
        tensors[new] = tensor.reshape(()) if name in SCALARS else tensor
    return tensors
