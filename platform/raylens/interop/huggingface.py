"""Conversion between Hugging Face's CLIPModel, its names and configuration, and raylens' own."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from raylens.config import ModelConfig, TextTransformerConfig, VisionTransformerConfig
from raylens.errors import BundleError
from raylens.inputs import CLIP_MEAN, CLIP_STD, Preprocess
from raylens.interop.json_config import number, section

__all__ = ["from_hf", "hf_config", "hf_json", "hf_preprocess", "hf_preprocess_json", "to_hf"]

# Our name, their name, and whether the tensor is transposed.
SINGLE = (
    ("visual.conv1.weight", "vision_model.embeddings.patch_embedding.weight", False),
    ("visual.class_embedding", "vision_model.embeddings.class_embedding", False),
    ("visual.positional_embedding", "vision_model.embeddings.position_embedding.weight", False),
    ("visual.ln_pre.weight", "vision_model.pre_layrnorm.weight", False),
    ("visual.ln_pre.bias", "vision_model.pre_layrnorm.bias", False),
    ("visual.ln_post.weight", "vision_model.post_layernorm.weight", False),
    ("visual.ln_post.bias", "vision_model.post_layernorm.bias", False),
    ("visual.proj", "visual_projection.weight", True),
    ("text.token_embedding.weight", "text_model.embeddings.token_embedding.weight", False),
    ("text.positional_embedding", "text_model.embeddings.position_embedding.weight", False),
    ("text.ln_final.weight", "text_model.final_layer_norm.weight", False),
    ("text.ln_final.bias", "text_model.final_layer_norm.bias", False),
    ("text.text_projection", "text_projection.weight", True),
)
IN_BLOCK = (
    ("attn.out_proj", "self_attn.out_proj"),
    ("ln_1", "layer_norm1"),
    ("ln_2", "layer_norm2"),
    ("mlp.c_fc", "mlp.fc1"),
    ("mlp.c_proj", "mlp.fc2"),
)
BLOCK = re.compile(r"(vision|text)_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
THIRD = re.compile(r"(vision|text)_model\.encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(weight|bias)")
OURS = {"vision": "visual", "text": "text"}
THEIRS = {ours: theirs for theirs, ours in OURS.items()}
QKV = ("q", "k", "v")


def from_hf(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert CLIPModel's state to ours. Unknown names stay as they are."""
    single = {theirs: (ours, turned) for ours, theirs, turned in SINGLE}
    weights: dict[str, Tensor] = {}
    thirds: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name in single:
            new, turned = single[name]
            weights[new] = tensor.T.contiguous() if turned else tensor
        elif third := THIRD.fullmatch(name):
            target = f"{OURS[third[1]]}.transformer.{third[2]}.attn.in_proj_{third[4]}"
            thirds.setdefault(target, {})[third[3]] = tensor
        elif not name.endswith(".position_ids"):
            weights[_from_block(name)] = tensor.reshape(1) if name == "logit_scale" else tensor
    for target, parts in thirds.items():
        if len(parts) < len(QKV):
            raise BundleError(f"{target}: of self_attn.{{q,k,v}}_proj only {', '.join(sorted(parts))} are there")
        weights[target] = torch.cat([parts[part] for part in QKV])
    return weights


def _from_block(name: str) -> str:
    match, ours = BLOCK.fullmatch(name), {theirs: ours for ours, theirs in IN_BLOCK}
    if match is None or match[3] not in ours:
        return name
    return f"{OURS[match[1]]}.transformer.{match[2]}.{ours[match[3]]}.{match[4]}"


def to_hf(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert our state to that of CLIPModel."""
    single = {ours: (theirs, turned) for ours, theirs, turned in SINGLE}
    block = dict(IN_BLOCK)
    tensors = {}
    for name, tensor in weights.items():
        if name in single:
            new, turned = single[name]
            tensors[new] = tensor.T.contiguous() if turned else tensor
        elif name == "logit_scale":
            tensors[name] = tensor.reshape(())
        else:
            tower, _, layer, rest = name.split(".", 3)
            prefix = f"{THEIRS[tower]}_model.encoder.layers.{layer}"
            if rest.startswith("attn.in_proj_"):
                for part, third in zip(QKV, tensor.chunk(3), strict=True):
                    tensors[f"{prefix}.self_attn.{part}_proj.{rest.removeprefix('attn.in_proj_')}"] = third.contiguous()
            else:
                layer_name, _, kind = rest.rpartition(".")
                tensors[f"{prefix}.{block[layer_name]}.{kind}"] = tensor
    return tensors


def hf_config(tree: Mapping[str, Any]) -> ModelConfig:
    """Convert the ``config.json`` of a CLIPModel; missing keys have the defaults of CLIPConfig.

    Raises:
        BundleError: the model is not CLIP, or has an architecture that raylens does not have.
    """
    if tree.get("model_type") != "clip":
        raise BundleError(f"config.json: model_type = {tree.get('model_type')!r}, expected 'clip'")
    vision, text = section(tree, "vision_config", "config.json"), section(tree, "text_config", "config.json")
    return ModelConfig(
        embed_dim=number(tree, "projection_dim", 512),
        activation=_activation(vision, text),
        image=VisionTransformerConfig(
            size=number(vision, "image_size", 224),
            patch=number(vision, "patch_size", 32),
            **_sizes(vision, "vision_config", 768, 12),
        ),
        text=TextTransformerConfig(
            context=number(text, "max_position_embeddings", 77),
            vocab=number(text, "vocab_size", 49_408),
            **_sizes(text, "text_config", 512, 8),
        ),
    )


def _sizes(tower: Mapping[str, Any], what: str, width: int, heads: int) -> dict[str, int]:
    width = number(tower, "hidden_size", width)
    inner, eps = number(tower, "intermediate_size", 4 * width), tower.get("layer_norm_eps", 1e-5)
    if inner != 4 * width or eps != 1e-5:
        raise BundleError(
            f"config.json: {what} has intermediate_size {inner} and layer_norm_eps {eps}, raylens has four times "
            f"hidden_size ({4 * width}) and 1e-05"
        )
    layers, heads = number(tower, "num_hidden_layers", 12), number(tower, "num_attention_heads", heads)
    return {"width": width, "layers": layers, "heads": heads}


def _activation(vision: Mapping[str, Any], text: Mapping[str, Any]) -> Any:
    of_vision, of_text = vision.get("hidden_act", "quick_gelu"), text.get("hidden_act", "quick_gelu")
    if of_vision != of_text or of_vision not in ("quick_gelu", "gelu"):
        raise BundleError(
            f"config.json: hidden_act is {of_vision!r} in vision_config and {of_text!r} in text_config: both must be "
            "quick_gelu, or gelu"
        )
    return of_vision


def hf_json(config: ModelConfig, end_id: int, start_id: int) -> dict[str, Any]:
    """Return the ``config.json`` that `hf_config` reads, with the other keys that CLIPModel needs.

    Raises:
        BundleError: CLIPModel has no such towers.
    """
    image, text = config.image, config.text
    if not isinstance(image, VisionTransformerConfig) or not isinstance(text, TextTransformerConfig):
        raise BundleError(f"CLIPModel has no towers of kind {image.kind!r} and {text.kind!r}: vit and transformer only")
    if config.logit_bias:
        raise BundleError("CLIPModel has no logit bias: export to openclip instead")
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": config.embed_dim,
        "logit_scale_init_value": 2.6592,
        "torch_dtype": "float32",
        "vision_config": {
            "model_type": "clip_vision_model",
            "image_size": image.size,
            "patch_size": image.patch,
            "num_channels": 3,
            "projection_dim": config.embed_dim,
            **_hf_sizes(image.width, image.layers, image.heads, config.activation),
        },
        "text_config": {
            "model_type": "clip_text_model",
            "max_position_embeddings": text.context,
            "vocab_size": text.vocab,
            "bos_token_id": start_id,
            "eos_token_id": end_id,
            "pad_token_id": 0,
            "projection_dim": config.embed_dim,
            **_hf_sizes(text.width, text.layers, text.heads, config.activation),
        },
    }


def _hf_sizes(width: int, layers: int, heads: int, activation: str) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "hidden_act": activation,
        "layer_norm_eps": 1e-5,
    }


def hf_preprocess(tree: Mapping[str, Any], size: int) -> Preprocess:
    """Convert ``preprocessor_config.json``: its normalisation, with CLIP's geometry."""
    return Preprocess(
        size=size, mean=tuple(tree.get("image_mean", CLIP_MEAN)), std=tuple(tree.get("image_std", CLIP_STD))
    )


def hf_preprocess_json(preprocess: Preprocess) -> dict[str, Any]:
    """Return the ``preprocessor_config.json`` that CLIPImageProcessor reads."""
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": preprocess.size},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": preprocess.size, "width": preprocess.size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "do_convert_rgb": True,
        "image_mean": list(preprocess.mean),
        "image_std": list(preprocess.std),
    }
