"""Reading of other programs' checkpoints: the kind is detected, numbers are kept, and any difference is an error."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from raylens.config import Activation, ModelConfig, explain
from raylens.errors import BundleError
from raylens.inputs import Preprocess, Tokenizer
from raylens.interop.files import read_tensors
from raylens.interop.huggingface import from_hf, hf_config, hf_preprocess
from raylens.interop.infer import infer_config
from raylens.interop.json_config import read_json
from raylens.interop.openclip import from_openclip, openclip_config, openclip_preprocess
from raylens.models import DualEncoder, at_resolution, difference, unfilled
from raylens.registry import Bundle, Lineage

__all__ = ["Foreign", "read_foreign"]

log = logging.getLogger(__name__)

OPENCLIP_CONFIG = "open_clip_config.json"
WEIGHTS = {
    "openclip": ("open_clip_model.safetensors", "open_clip_pytorch_model.bin", "open_clip_pytorch_model.pt"),
    "hf": ("model.safetensors", "pytorch_model.bin"),
}
"""The names of weight files that a folder may have; safe formats come first."""


@dataclass(frozen=True)
class Foreign:
    """A model of another program under our names, in fp32."""

    format: str
    """The checkpoint's format: ``openai``, ``openclip`` or ``hf``."""
    config: ModelConfig
    weights: Mapping[str, Tensor]
    preprocess: Preprocess
    tokenizer: Tokenizer | None
    notes: tuple[str, ...] = field(default=())
    """The changes made to the model, as sentences for people."""

    def resized(self, size: int) -> "Foreign":
        """Return the model for images of ``size`` pixels (see `raylens.models.vit`)."""
        if size == self.config.image.size:
            return self
        config, weights = at_resolution(self.config, dict(self.weights), size)
        note = f"positions interpolated from {self.config.image.size} to {size} pixels"
        preprocess = self.preprocess.model_copy(update={"size": size})
        return replace(self, config=config, weights=weights, preprocess=preprocess, notes=(*self.notes, note))

    def bundle(self, tokenizer: Tokenizer | None, source: str) -> Bundle:
        """Return the model as a bundle; ``tokenizer`` takes precedence over the checkpoint's own.

        Raises:
            BundleError: there is no tokenizer, or it does not fit.
        """
        tokenizer = tokenizer or self.tokenizer
        if tokenizer is None:
            raise BundleError(f"{source} has no tokenizer: give --tokenizer, e.g. bpe_simple_vocab_16e6.txt.gz")
        lineage = Lineage(imported_from=source, format=self.format, notes=self.notes)
        return Bundle(self.config, self.weights, tokenizer, self.preprocess, lineage)


def read_foreign(path: Path, *, activation: Activation | None = None) -> Foreign:
    """Read a checkpoint of OpenAI, OpenCLIP or Hugging Face.

    Args:
        path: a folder with ``open_clip_config.json``, a folder of CLIPModel, or a file of weights.
        activation: the activation, for a file of weights that does not name it; it must agree with one that does.

    Raises:
        BundleError: the path is none of these, damaged, unsafe, of another architecture, or names another activation.
    """
    try:
        foreign = _from_folder(path) if path.is_dir() else _from_file(path, activation)
    except ValidationError as error:
        raise BundleError(f"{path}: {explain(error, ModelConfig)}") from None
    if activation is not None and activation != foreign.config.activation:
        raise BundleError(
            f"{path} has activation {foreign.config.activation}, not {activation}: leave --activation out"
        )
    return replace(foreign, weights=_checked(foreign, path))


def _from_folder(path: Path) -> Foreign:
    if (path / OPENCLIP_CONFIG).exists():
        tree = read_json(path / OPENCLIP_CONFIG)
        config = openclip_config(tree)
        tensors, _ = read_tensors(_weights_file(path, "openclip"))
        preprocess = openclip_preprocess(tree, config.image.size)
        return Foreign("openclip", config, from_openclip(tensors), preprocess, _tokenizer(path))
    if not (path / "config.json").exists():
        raise BundleError(f"{path} has neither {OPENCLIP_CONFIG} nor config.json: it is not the folder of a CLIP model")
    config = hf_config(read_json(path / "config.json"))
    tensors, _ = read_tensors(_weights_file(path, "hf"))
    geometry = path / "preprocessor_config.json"
    preprocess = hf_preprocess(read_json(geometry) if geometry.exists() else {}, config.image.size)
    return Foreign("hf", config, from_hf(tensors), preprocess, _tokenizer(path))


def _weights_file(path: Path, kind: str) -> Path:
    for name in WEIGHTS[kind]:
        if (path / name).exists():
            return path / name
    raise BundleError(f"{path} has no weights: none of {', '.join(WEIGHTS[kind])}")


def _tokenizer(path: Path) -> Tokenizer | None:
    if (path / "tokenizer.json").exists() or (path / "merges.txt").exists():
        return Tokenizer.from_file(path)
    return None


def _from_file(path: Path, activation: Activation | None) -> Foreign:
    tensors, archive = read_tensors(path)
    # Only OpenAI's files have these entries, and all of its models have the approximate activation.
    by_openai = archive or "input_resolution" in tensors
    known: Activation | None = "quick_gelu" if by_openai else activation
    if known is None:
        raise BundleError(
            f"{path} does not say which activation it was trained with: give --activation quick_gelu (OpenAI, "
            f"MetaCLIP, DFN) or gelu (LAION), or put its {OPENCLIP_CONFIG} beside it and import the folder"
        )
    weights = from_openclip(tensors)
    config = infer_config(weights, known)
    return Foreign("openai" if by_openai else "openclip", config, weights, Preprocess(size=config.image.size), None)


def _checked(foreign: Foreign, path: Path) -> dict[str, Tensor]:
    with unfilled():
        expected: dict[str, Any] = DualEncoder(foreign.config, end_id=0, mean=(0, 0, 0), std=(1, 1, 1)).state_dict()
    if differing := difference(expected, foreign.weights):
        raise BundleError(f"{path} is not the model that its configuration describes: {differing}")
    return {
        name: foreign.weights[name].float() if tensor.is_floating_point() else foreign.weights[name]
        for name, tensor in expected.items()
    }
