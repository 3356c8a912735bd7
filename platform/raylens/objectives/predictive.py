"""The predictive objectives, which the paper compares with contrastive learning: a caption's words, or the caption.

Radford et al. 2021, section 2.3 and figure 2. Shapes: ``b`` captions, ``T`` tokens, ``N`` tokens without padding,
``V`` vocabulary, ``D`` embedding width. Each function returns a loss per caption that depends on no other caption, so
the mean over micro-batches and ranks is the loss of the global batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from raylens.errors import TrainingError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["bag_of_words_loss", "caption_loss"]


def bag_of_words_loss(image_bD: Tensor, word_VD: Tensor, log_scale: Tensor, ids_bT: Tensor, end_b: Tensor) -> Tensor:
    """Return the cross-entropy between each caption's words, all equally likely, and those predicted from its image.

    Joulin et al. 2016, "Learning Visual Features from Large Weakly Supervised Data", section 3.2, the multi-class
    logistic loss. A word is a token between start and end; one that is repeated counts once. A caption without
    words counts its end token as a word.

    Args:
        image_bD: image embeddings of unit norm.
        word_VD: an embedding of unit norm for each token of the vocabulary.
        log_scale: logarithm of the logit scale, one element.
        ids_bT: token ids, which begin with the start token.
        end_b: the position of each caption's end token.

    Returns:
        The loss of each caption ``[b]`` in nats, in fp32.

    Raises:
        TrainingError: the shapes do not fit.
    """
    if image_bD.ndim != 2 or word_VD.ndim != 2 or image_bD.shape[1] != word_VD.shape[1]:
        raise TrainingError(
            f"image_bD has shape {tuple(image_bD.shape)} and word_VD {tuple(word_VD.shape)}: "
            "they must be [b, D] and [V, D]"
        )
    target_bV = torch.zeros(len(ids_bT), len(word_VD), device=image_bD.device)
    place_T = torch.arange(ids_bT.shape[1], device=ids_bT.device)
    end_b1 = end_b[:, None]
    is_word_bT = ((place_T > 0) & (place_T < end_b1)) | ((place_T == end_b1) & (end_b1 <= 1))
    row_n, place_n = is_word_bT.nonzero(as_tuple=True)
    target_bV[row_n, ids_bT[row_n, place_n].long()] = 1.0
    target_bV /= target_bV.sum(1, keepdim=True)
    with torch.autocast(image_bD.device.type, enabled=False):
        logits_bV = log_scale.float().exp() * (image_bD.float() @ word_VD.float().T)
        return functional.cross_entropy(logits_bV, target_bV, reduction="none")


def caption_loss(logits_NV: Tensor, next_N: Tensor, row_N: Tensor, captions: int) -> Tensor:
    """Return ``-log p(caption)``: the sum over a caption's tokens of each one's cross-entropy given those before it.

    This is Desai and Johnson 2021, "VirTex", equation 1, in one direction.

    Args:
        logits_NV: the predictions after each token of a caption but its last.
        next_N: the token that follows.
        row_N: the caption that the token belongs to.
        captions: the number of captions, ``b``.

    Returns:
        The loss of each caption ``[b]`` in nats, in fp32.

    Raises:
        TrainingError: the shapes do not fit.
    """
    if logits_NV.ndim != 2 or not len(logits_NV) == len(next_N) == len(row_N):
        raise TrainingError(
            f"logits_NV has shape {tuple(logits_NV.shape)}, next_N {tuple(next_N.shape)} and row_N "
            f"{tuple(row_N.shape)}: they must have the same first dimension"
        )
    loss_N = functional.cross_entropy(logits_NV.float(), next_N.long(), reduction="none")
    return loss_N.new_zeros(captions).index_add(0, row_N, loss_N)
