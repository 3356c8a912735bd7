"""An encoder built from a bundle: it embeds texts and images as unit vectors.

Shapes: B items, S image size, T tokens, D embedding.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raylens.errors import BundleError
from raylens.models import DualEncoder, ZeroShotClassifier, difference, pack, unfilled
from raylens.registry.bundle import Bundle

__all__ = ["Encoder"]

TOWERS: dict[Literal["image", "text"], str] = {"image": "visual", "text": "text"}
"""The attributes of `raylens.models.DualEncoder` that hold each tower."""


class Encoder:
    """The encoder of evaluation and serving, which thus run the same code on the same inputs.

    Raises:
        BundleError: weights, tokenizer or preprocessing do not fit the bundle's config.
    """

    def __init__(self, bundle: Bundle, device: str = "cpu") -> None:
        self.bundle = bundle
        self.tokenizer = bundle.tokenizer
        self.preprocess = bundle.preprocess
        self.model = _build(bundle).to(device)

    @property
    def embed_dim(self) -> int:
        """The width ``D`` of the joint space."""
        return self.bundle.config.embed_dim

    @property
    def context(self) -> int:
        """The most tokens ``T`` of a text, start and end tokens included."""
        return self.bundle.config.text.context

    @property
    def logit_scale(self) -> float:
        """The logit scale that the model learned (not its logarithm)."""
        return math.exp(float(self.model.logit_scale))

    @property
    def embeds_texts(self) -> bool:
        """Whether the model embeds texts; one that was trained to predict captions does not."""
        return self.bundle.lineage.objective != "caption"

    def round_tower(self, tower: Literal["image", "text"], dtype: torch.dtype) -> None:
        """Multiply in a smaller dtype; see `raylens.models.DualEncoder.multiply_in`."""
        self.model.multiply_in(dtype, self._tower(tower))

    def restore_tower(self, tower: Literal["image", "text"]) -> None:
        """Load a tower's weights from the bundle again, which undoes any rounding."""
        prefix = f"{TOWERS[tower]}."
        weights = {name: value for name, value in self.bundle.weights.items() if name.startswith(prefix)}
        device = self.model.device
        own = {name.removeprefix(prefix): value.to(device) for name, value in weights.items()}
        self._tower(tower).load_state_dict(own, assign=True)
        self._tower(tower).requires_grad_(False)

    def keep_only(self, towers: Collection[Literal["image", "text"]]) -> None:
        """Free the memory of the other towers, and of the bundle's unrounded weights."""
        for tower, name in TOWERS.items():
            if tower not in towers:
                setattr(self.model, name, torch.nn.Identity())
        self.bundle = replace(self.bundle, weights={})

    def pack(self) -> None:
        """Rearrange the weights for the processor, irreversibly; see `raylens.models.pack`."""
        for name in TOWERS.values():
            pack(getattr(self.model, name))

    def _tower(self, tower: Literal["image", "text"]) -> torch.nn.Module:
        module: torch.nn.Module = getattr(self.model, TOWERS[tower])
        return module

    @torch.inference_mode()
    def encode_ids(self, ids_BT: NDArray[np.int32]) -> Tensor:
        """Embed token ids ``[B, T]`` as unit vectors ``[B, D]``, in fp32 on the CPU.

        Raises:
            BundleError: the model was trained to predict captions, and embeds no texts.
        """
        if not self.embeds_texts:
            raise BundleError(
                "lineage.objective = 'caption': this model's text tower predicts captions and embeds no text; use its "
                "images' embeddings, or raylens.models.caption_scores"
            )
        if len(ids_BT) == 0:
            return torch.zeros(0, self.embed_dim)
        return self.model.encode_text(_tensor(ids_BT).to(self.model.device)).cpu()

    @torch.inference_mode()
    def encode_pixels(self, image_BSSC: NDArray[np.uint8]) -> Tensor:
        """Embed preprocessed images ``[B, S, S, 3]`` uint8 as unit vectors ``[B, D]``, in fp32 on the CPU."""
        if len(image_BSSC) == 0:
            return torch.zeros(0, self.embed_dim)
        return self.model.encode_image(_tensor(image_BSSC).to(self.model.device)).cpu()

    def encode_texts(self, texts: Sequence[str], *, batch: int = 256) -> Tensor:
        """Embed ``B`` texts as unit vectors ``[B, D]``; texts longer than the context are truncated."""
        ids_BT, _ = self.tokenizer(texts, self.context)
        return torch.cat([self.encode_ids(ids_BT[at : at + batch]) for at in range(0, max(1, len(texts)), batch)])

    def encode_images(self, files: Sequence[bytes], *, batch: int = 64) -> Tensor:
        """Embed ``B`` image files as unit vectors ``[B, D]``.

        Raises:
            InputError: one of the files is not a usable image.
        """
        if not files:
            return torch.zeros(0, self.embed_dim)
        parts = (files[at : at + batch] for at in range(0, len(files), batch))
        return torch.cat([self.encode_pixels(np.stack([self.preprocess(data) for data in part])) for part in parts])

    def classifier(self, prompts: Sequence[Sequence[str]]) -> ZeroShotClassifier:
        """Build a zero-shot classifier from each class's prompts (see `raylens.inputs.fill_templates`)."""
        return ZeroShotClassifier.build(prompts, self.encode_texts, self.logit_scale)


def _tensor(array: NDArray[Any]) -> Tensor:
    # A copy: arrays from decoders and shared memory are often read-only, which torch does not support.
    return torch.from_numpy(array.copy())


def _check_inputs(bundle: Bundle) -> None:
    """Refuse a bundle that would fail at the first text or image, or embed it wrongly."""
    size, rows = bundle.config.image.size, bundle.config.text.vocab
    if bundle.preprocess.size != size:
        raise BundleError(f"preprocess.json has size {bundle.preprocess.size}, config.json has image.size {size}")
    if bundle.tokenizer.vocab_size > rows:
        raise BundleError(f"tokenizer.json has {bundle.tokenizer.vocab_size} tokens, config.json has text.vocab {rows}")


def _build(bundle: Bundle) -> DualEncoder:
    _check_inputs(bundle)
    with unfilled():
        model = DualEncoder(
            bundle.config, end_id=bundle.tokenizer.end_id, mean=bundle.preprocess.mean, std=bundle.preprocess.std
        )
    if differing := difference(model.state_dict(), bundle.weights):
        raise BundleError(f"weights do not fit config.json: {differing}")
    model.load_state_dict(dict(bundle.weights), assign=True)
    return model.eval().requires_grad_(False)
