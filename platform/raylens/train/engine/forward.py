"""The forward pass of a training step on a worker's pairs, as one module, and the loss over pairs.

Shapes: b some or all pairs of a worker, S image size, T tokens, D embedding, B the worker's batch.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from raylens.config import ObjectiveConfig, RunConfig
from raylens.data import key_of, mix
from raylens.models import DualEncoder, Embedded, prepare_towers
from raylens.objectives import (
    bag_of_words_loss,
    capped_log_scale,
    caption_loss,
    contrastive_loss,
    sigmoid_loss,
    triplet_loss,
)

__all__ = [
    "CaptionForward",
    "Forward",
    "PairForward",
    "SampleLosses",
    "WordForward",
    "build_forward",
    "pair_loss",
    "sample_keys",
]


class SampleLosses(NamedTuple):
    """Losses of pairs that do not depend on each other."""

    loss_b: Tensor
    log_scale: Tensor
    """Logarithm of the logit scale that was used; 0 for an objective without one."""


class Forward(nn.Module):
    """The towers and the computations on them, as one module: ZeRO-3 gathers parameters when its forward begins."""

    def __init__(self, model: DualEncoder, config: RunConfig) -> None:
        super().__init__()
        self.model = prepare_towers(model, config.towers)
        self.autocast = config.precision == "amp_bf16"
        self.max_logit_scale = config.objective.max_logit_scale
        self.exact: dict[str, float] = {}
        """Values that replace the module's scale logarithm (``log_scale``) and bias for a step: those of a schedule, or
        of the master copy where half precision would round them."""
        if not (config.objective.learn_scale and config.objective.has_scale):
            model.logit_scale.requires_grad_(False)

    def embed_images(self, image_bSSC: Tensor) -> Tensor:
        """Return the unit vectors ``[b, D]`` of images, outside a step."""
        with self._casting(image_bSSC):
            return self.model.encode_image(image_bSSC)

    def embed_texts(self, ids_bT: Tensor) -> Tensor:
        """Return the unit vectors ``[b, D]`` of texts, outside a step."""
        with self._casting(ids_bT):
            return self.model.encode_text(ids_bT)

    def _exactly(self, name: str, value: Tensor) -> Tensor:
        """Return a value with its gradient, but with the exact number where there is one."""
        return value + (self.exact[name] - value).detach() if name in self.exact else value

    def _casting(self, batch: Tensor) -> torch.autocast:
        return torch.autocast(batch.device.type, dtype=torch.bfloat16, enabled=self.autocast)


class PairForward(Forward):
    """Embeds pairs in the joint space; the loss over all pairs of the global batch is computed from the result."""

    def forward(self, image_bSSC: Tensor, ids_bT: Tensor, key_b: Tensor) -> Embedded:
        """Return the embeddings of some pairs; see `DualEncoder.forward`."""
        with self._casting(image_bSSC):
            embedded: Embedded = self.model(image_bSSC, ids_bT, key_b)
        bias = None if embedded.bias is None else self._exactly("bias", embedded.bias)
        return embedded._replace(log_scale=self._exactly("log_scale", embedded.log_scale), bias=bias)


class WordForward(Forward):
    """Predicts the words of each caption from its image, and returns the loss of each pair."""

    def forward(self, image_bSSC: Tensor, ids_bT: Tensor, key_b: Tensor) -> SampleLosses:
        """Return the loss of each pair."""
        with self._casting(image_bSSC):
            image_bD, word_VD, log_scale, end_b = self.model(image_bSSC, ids_bT, key_b, "words")
        log_scale = capped_log_scale(self._exactly("log_scale", log_scale), self.max_logit_scale)
        return SampleLosses(bag_of_words_loss(image_bD, word_VD, log_scale, ids_bT, end_b), log_scale)


class CaptionForward(Forward):
    """Predicts each caption from its image, and returns the loss of each pair."""

    def forward(self, image_bSSC: Tensor, ids_bT: Tensor, key_b: Tensor) -> SampleLosses:
        """Return the loss of each pair."""
        with self._casting(image_bSSC):
            logits_NV, next_N, row_N = self.model(image_bSSC, ids_bT, key_b, "caption")
        return SampleLosses(caption_loss(logits_NV, next_N, row_N, len(ids_bT)), logits_NV.new_zeros(()))


def build_forward(model: DualEncoder, config: RunConfig) -> Forward:
    """Return the forward module of the run's objective, which wraps ``model`` itself."""
    kinds: dict[str, type[Forward]] = {"bag_of_words": WordForward, "caption": CaptionForward}
    return kinds.get(config.objective.kind, PairForward)(model, config)


def pair_loss(embedded: Embedded, objective: ObjectiveConfig) -> Tensor:
    """Return the loss over the global batch from this worker's pairs. Collective, as is its backward pass."""
    image_bD, text_bD, log_scale, bias = embedded
    if objective.kind == "triplet":
        return triplet_loss(image_bD, text_bD, margin=objective.margin, matmul_precision=objective.matmul_precision)
    log_scale = capped_log_scale(log_scale, objective.max_logit_scale)
    if objective.kind == "sigmoid":
        assert bias is not None
        return sigmoid_loss(image_bD, text_bD, log_scale, bias, matmul_precision=objective.matmul_precision)
    return contrastive_loss(image_bD, text_bD, log_scale, matmul_precision=objective.matmul_precision)


def sample_keys(seed: int, position_B: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a key ``[B]`` for each sample's random choices in the towers, such as its dropped values and patches.

    The key depends on the run's seed and the sample's position in the plan, which is unique within a run.
    """
    base = np.uint64(key_of(f"raylens dropout {seed}"))
    return mix(base ^ mix(position_B.astype(np.uint64))).view(np.int64)
