"""Writing of a bundle as a checkpoint of another program."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from raylens.config import TextTransformerConfig
from raylens.errors import AlreadyExistsError, BundleError
from raylens.interop.huggingface import hf_json, hf_preprocess_json, to_hf
from raylens.interop.openclip import openclip_json, to_openclip
from raylens.registry import Bundle

__all__ = ["FORMATS", "write_foreign"]


def write_foreign(bundle: Bundle, target: Path, form: str) -> None:
    """Write a bundle as a folder (``openclip``, ``hf``) or a file (``openai``), which must not exist yet.

    Raises:
        BundleError: the format has no such architecture.
        AlreadyExistsError: ``target`` exists.
    """
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise AlreadyExistsError(f"{target} exists already: delete it, or export to another place")
    FORMATS[form](bundle, target)


def _openclip(bundle: Bundle, target: Path) -> None:
    tree = openclip_json(bundle.config, bundle.preprocess)
    target.mkdir(parents=True, exist_ok=True)
    _save(to_openclip(bundle.weights), target / "open_clip_model.safetensors")
    _dump(tree, target / "open_clip_config.json")
    (target / "tokenizer.json").write_text(bundle.tokenizer.to_json(), encoding="utf-8")


def _hf(bundle: Bundle, target: Path) -> None:
    tokenizer, context = bundle.tokenizer, bundle.config.text.context
    tree = hf_json(bundle.config, tokenizer.end_id, tokenizer.start_id)
    target.mkdir(parents=True, exist_ok=True)
    _save(to_hf(bundle.weights), target / "model.safetensors")
    _dump(tree, target / "config.json")
    _dump(hf_preprocess_json(bundle.preprocess), target / "preprocessor_config.json")
    (target / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    _dump({"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": context, **MARKS}, target / TOKENIZER)


TOKENIZER = "tokenizer_config.json"
MARKS = {
    "bos_token": "<|startoftext|>",
    "eos_token": "<|endoftext|>",
    "pad_token": "<|endoftext|>",
    "unk_token": "<|endoftext|>",
}


def _openai(bundle: Bundle, target: Path) -> None:
    text = bundle.config.text
    if not isinstance(text, TextTransformerConfig) or bundle.config.logit_bias:
        raise BundleError("OpenAI's format has text transformers only, and no logit bias: export to openclip instead")
    if bundle.config.activation != "quick_gelu":
        raise BundleError("OpenAI's format is read with quick_gelu, this model has gelu: export to openclip instead")
    described = {"input_resolution": bundle.config.image.size, "context_length": text.context, "vocab_size": text.vocab}
    target.parent.mkdir(parents=True, exist_ok=True)
    state = to_openclip(bundle.weights) | {name: torch.tensor(value) for name, value in described.items()}
    torch.save(state, target)


FORMATS: Mapping[str, Callable[[Bundle, Path], None]] = {"openclip": _openclip, "hf": _hf, "openai": _openai}
"""The writers by their names on the command line."""


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, {"format": "pt"})


def _dump(tree: Mapping[str, Any], path: Path) -> None:
    path.write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")
