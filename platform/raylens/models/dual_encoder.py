"""The dual encoder: two towers and a learned logit scale.

Shapes: B batch, S image size, T tokens, D embedding.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from raylens.config import ModelConfig
from raylens.models.noise import any_keys
from raylens.models.resnet import ResNet
from raylens.models.text import BagOfWords, Prediction, TextTransformer
from raylens.models.transformer import Attention
from raylens.models.vit import VisionTransformer

__all__ = ["DualEncoder", "Embedded", "Task", "Words"]

Task = Literal["embed", "words", "caption"]

# A new kind of tower is a file with its module, a class in `raylens.config.model`, and a line here.
IMAGE_TOWERS: dict[str, Any] = {"vit": VisionTransformer, "resnet": ResNet}
TEXT_TOWERS: dict[str, Any] = {"transformer": TextTransformer, "cbow": BagOfWords}


class Embedded(NamedTuple):
    """Embeddings of a batch of pairs in the joint space, and what turns their cosines into logits."""

    image_BD: Tensor
    text_BD: Tensor
    log_scale: Tensor
    """The logarithm of the logit scale, a scalar."""
    bias: Tensor | None
    """The bias added to every logit; None where the model has none."""


class Words(NamedTuple):
    """Embeddings of images, and of the words that the images are to predict."""

    image_BD: Tensor
    word_VD: Tensor
    """A unit vector for each token of the vocabulary."""
    log_scale: Tensor
    end_B: Tensor
    """The position of each caption's end token."""


class DualEncoder(nn.Module):
    """A model that maps images and texts to unit vectors of one space.

    It takes raw pixels and token ids, as the loader and the API have them; it normalises the pixels and cuts the
    padding on the device.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        end_id: int,
        mean: Sequence[float],
        std: Sequence[float],
        temperature: float = 0.07,
        bias: float = -10.0,
    ) -> None:
        super().__init__()
        self.config = config
        self.end_id = end_id
        self._locked: tuple[nn.Module, ...] = ()
        self.visual: nn.Module = IMAGE_TOWERS[config.image.kind](config.image, config.embed_dim, config.activation)
        self.text: nn.Module = TEXT_TOWERS[config.text.kind](config.text, config.embed_dim, config.activation)
        # One element, not a scalar: DeepSpeed broadcasts parameters as bytes, and a scalar cannot be viewed as bytes.
        self.logit_scale = nn.Parameter(torch.tensor([math.log(1.0 / temperature)]))
        self.logit_bias = nn.Parameter(torch.tensor([bias])) if config.logit_bias else None
        # Plain numbers, not buffers: a cast of the module to bf16 would round buffers, and training would see other
        # pixels than serving.
        self.mean, self.std = tuple(mean), tuple(std)

    @property
    def dtype(self) -> torch.dtype:
        """The data type that the towers compute in."""
        return next(module.weight.dtype for module in self.visual.modules() if isinstance(module, nn.Conv2d))

    @property
    def device(self) -> torch.device:
        """The device that holds the towers."""
        return self.logit_scale.device

    def encode_image(self, image_BSSC: Tensor, key_B: Tensor | None = None) -> Tensor:
        """Embed uint8 pixels ``[B, S, S, 3]`` as unit vectors ``[B, D]`` in fp32; see `forward` for ``key_B``."""
        pixels_BCSS = image_BSSC.permute(0, 3, 1, 2).float().div(255.0)
        mean_C11, std_C11 = (pixels_BCSS.new_tensor(of).view(3, 1, 1) for of in (self.mean, self.std))
        pixels_BCSS = (pixels_BCSS - mean_C11) / std_C11
        return functional.normalize(self.visual(pixels_BCSS.to(self.dtype), key_B).float(), dim=-1)

    def encode_text(self, ids_BT: Tensor, key_B: Tensor | None = None) -> Tensor:
        """Embed token ids ``[B, T]``, padded after the end token, as unit vectors ``[B, D]`` in fp32; see `forward`."""
        return functional.normalize(self.text(ids_BT.long(), self.end_of(ids_BT), key_B).float(), dim=-1)

    def end_of(self, ids_BT: Tensor) -> Tensor:
        """Return the position of each text's end token, ``[B]``."""
        return (ids_BT == self.end_id).int().argmax(dim=1)

    def _words(self, image_BD: Tensor, ids_BT: Tensor) -> "Words":
        assert isinstance(self.text, BagOfWords)
        end_B = self.end_of(ids_BT)
        word_VD = functional.normalize(self.text(ids_BT, end_B, words=True).float(), dim=-1)
        return Words(image_BD, word_VD, self.logit_scale.float()[0], end_B)

    def multiply_in(self, dtype: torch.dtype, tower: nn.Module | None = None) -> None:
        """Cast the weights of matrix products, in one tower or both; gains, embeddings and the scale keep their dtype.

        bf16 has too few digits for these to learn: a gain of 1 can only move in steps of 0.008.
        """
        for module in (tower or self).modules():
            if isinstance(module, nn.Linear | nn.Conv2d | Attention):
                module.to(dtype)

    def lock(self, *, image: bool, text: bool) -> None:
        """Freeze towers: they get no gradients and stay in evaluation mode, so that BatchNorm learns nothing."""
        self._locked = tuple(tower for tower, locked in ((self.visual, image), (self.text, text)) if locked)
        for tower in self._locked:
            tower.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Implement `torch.nn.Module.train`: locked towers stay in evaluation mode."""
        super().train(mode)
        for tower in self._locked:
            tower.eval()
        return self

    def forward(
        self, image_BSSC: Tensor, ids_BT: Tensor, key_B: Tensor | None = None, task: Task = "embed"
    ) -> "Embedded | Words | Prediction":
        """Embed a batch of pairs: return unit vectors, and what turns their cosines into logits.

        Args:
            image_BSSC: uint8 pixels ``[B, S, S, 3]``.
            ids_BT: token ids, padded after the end token.
            key_B: an int64 for each sample, on which its dropout depends in training; drawn from torch's generator if
                None.
            task: ``words`` returns the `Words` of a text tower that is a bag of words; ``caption`` returns the
                `Prediction` of a text transformer for each image's caption.
        """
        if key_B is None and self.training:
            key_B = any_keys(len(ids_BT), ids_BT.device)
        if task == "words":
            return self._words(self.encode_image(image_BSSC, key_B), ids_BT)
        if task == "caption":
            assert isinstance(self.text, TextTransformer)
            image_BD = self.encode_image(image_BSSC, key_B)
            prediction: Prediction = self.text(ids_BT.long(), self.end_of(ids_BT), key_B, image_BD=image_BD)
            return prediction
        # New tensors, not the parameters themselves: ZeRO-3 releases those when forward ends.
        bias = None if self.logit_bias is None else self.logit_bias.float()[0]
        return Embedded(
            self.encode_image(image_BSSC, key_B), self.encode_text(ids_BT, key_B), self.logit_scale.float()[0], bias
        )
