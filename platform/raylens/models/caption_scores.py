"""Zero-shot classification by a model that predicts captions: the likelihood of each class's prompts, given the image.

Shapes: B images, C classes, P prompts of all classes, T tokens, D embedding.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from raylens.models.dual_encoder import DualEncoder
from raylens.models.text import Prediction, TextTransformer

__all__ = ["caption_scores"]


@torch.no_grad()
def caption_scores(
    model: DualEncoder, image_BD: Tensor, ids_PT: Tensor, prompts: Sequence[int], *, batch: int = 256
) -> Tensor:
    """Return logits ``[B, C]``: the logarithm of the mean over a class's prompts of ``p(prompt | image)``.

    Args:
        model: a model trained with the caption objective; its text tower is a transformer.
        image_BD: image embeddings, as `DualEncoder.encode_image` gives them.
        ids_PT: token ids of all prompts, class by class.
        prompts: the number of prompts of each class.
        batch: the number of images that are scored at a time.
    """
    parts = [_log_likely(model, image_bD, ids_PT) for image_bD in image_BD.split(batch)]
    by_class = torch.cat(parts).split(list(prompts), dim=1)
    return torch.stack([part.logsumexp(dim=1) - math.log(part.shape[1]) for part in by_class], dim=1)


def _log_likely(model: DualEncoder, image_bD: Tensor, ids_PT: Tensor) -> Tensor:
    """Return ``log p(prompt | image)``, ``[b, P]``."""
    assert isinstance(model.text, TextTransformer)
    end_P = model.end_of(ids_PT)
    columns = []
    for ids_T, end in zip(ids_PT, end_P, strict=True):
        b = len(image_bD)
        predicted: Prediction = model.text(ids_T.expand(b, -1).long(), end.expand(b), None, image_bD)
        loss_N = functional.cross_entropy(predicted.logits_NV.float(), predicted.next_N, reduction="none")
        columns.append(loss_N.new_zeros(b).index_add(0, predicted.row_N, -loss_N))
    return torch.stack(columns, dim=1)
