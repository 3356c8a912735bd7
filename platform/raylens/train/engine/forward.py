"""What a training step computes on a worker's pairs, as one module.

Shapes: b a worker's pairs or some of them, S image size, T tokens, D embedding.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from raylens.config import ObjectiveConfig, RunConfig
from raylens.models import DualEncoder, Embedded
from raylens.models.training import prepare_towers
from raylens.objectives import (
    bag_of_words_loss,
    capped_log_scale,
    caption_loss,
    contrastive_loss,
    sigmoid_loss,
    triplet_loss,
)

__all__ = ["CaptionForward", "Forward", "Losses", "PairForward", "WordForward", "forward_of", "pair_loss"]


class Losses(NamedTuple):
    """Of pairs that are no part of each other's loss."""

    loss_b: Tensor
    log_scale: Tensor
    """In use; 0 where there is none."""


class Forward(nn.Module):
    """Towers and what is computed of them, because ZeRO-3 gathers parameters where a module's forward begins."""

    def __init__(self, model: DualEncoder, config: RunConfig) -> None:
        super().__init__()
        self.model = prepare_towers(model, config.towers)
        self.autocast = config.precision == "amp_bf16"
        self.max_logit_scale = config.objective.max_logit_scale
        self.exact: dict[str, float] = {}
        """Values that the scale's logarithm (``log_scale``) and the bias take for a step in place of the module's: of a
        schedule, or of the master copy of what half precision would round."""
        if not (config.objective.learn_scale and config.objective.has_scale):
            model.logit_scale.requires_grad_(False)

    def embed_images(self, image_bSSC: Tensor) -> Tensor:
        """Unit vectors ``[b, D]``, outside a step."""
        with self._casting(image_bSSC):
            return self.model.encode_image(image_bSSC)

    def embed_texts(self, ids_bT: Tensor) -> Tensor:
        """Unit vectors ``[b, D]``, outside a step."""
        with self._casting(ids_bT):
            return self.model.encode_text(ids_bT)

    def _exactly(self, name: str, value: Tensor) -> Tensor:
        """A value with its gradient, but where there is one, with the exact number."""
        return value + (self.exact[name] - value).detach() if name in self.exact else value

    def _casting(self, given: Tensor) -> torch.autocast:
        return torch.autocast(given.device.type, dtype=torch.bfloat16, enabled=self.autocast)


class PairForward(Forward):
    """Pairs to the joint space; the loss is over all pairs of the global batch, so it comes later."""

    def forward(self, image_bSSC: Tensor, ids_bT: Tensor, key_b: Tensor) -> Embedded:
        """See `DualEncoder.forward`."""
        with self._casting(image_bSSC):
            embedded: Embedded = self.model(image_bSSC, ids_bT, key_b)
        bias = None if embedded.bias is None else self._exactly("bias", embedded.bias)
        return embedded._replace(log_scale=self._exactly("log_scale", embedded.log_scale), bias=bias)


class WordForward(Forward):
    """Pairs to the loss of each: its words from its image."""

    def forward(self, image_bSSC: Tensor, ids_bT: Tensor, key_b: Tensor) -> Losses:
        """Each pair's loss."""
        with self._casting(image_bSSC):
            image_bD, word_VD, log_scale, end_b = self.model(image_bSSC, ids_bT, key_b, "words")
        log_scale = capped_log_scale(self._exactly("log_scale", log_scale), self.max_logit_scale)
        return Losses(bag_of_words_loss(image_bD, word_VD, log_scale, ids_bT, end_b), log_scale)


class CaptionForward(Forward):
    """Pairs to the loss of each: its caption from its image."""

    def forward(self, image_bSSC: Tensor, ids_bT: Tensor, key_b: Tensor) -> Losses:
        """Each pair's loss."""
        with self._casting(image_bSSC):
            logits_NV, next_N, row_N = self.model(image_bSSC, ids_bT, key_b, "caption")
        return Losses(caption_loss(logits_NV, next_N, row_N, len(ids_bT)), logits_NV.new_zeros(()))


def forward_of(model: DualEncoder, config: RunConfig) -> Forward:
    """The module of the run's objective, over ``model`` itself."""
    kinds: dict[str, type[Forward]] = {"bag_of_words": WordForward, "caption": CaptionForward}
    return kinds.get(config.objective.kind, PairForward)(model, config)


def pair_loss(embedded: Embedded, objective: ObjectiveConfig) -> Tensor:
    """The loss over the global batch, from this worker's pairs. Collective, and so is its backward pass."""
    image_bD, text_bD, log_scale, bias = embedded
    if objective.kind == "triplet":
        return triplet_loss(image_bD, text_bD, margin=objective.margin, matmul_precision=objective.matmul_precision)
    log_scale = capped_log_scale(log_scale, objective.max_logit_scale)
    if objective.kind == "sigmoid":
        assert bias is not None
        return sigmoid_loss(image_bD, text_bD, log_scale, bias, matmul_precision=objective.matmul_precision)
    return contrastive_loss(image_bD, text_bD, log_scale, matmul_precision=objective.matmul_precision)
