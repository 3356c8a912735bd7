"""The metrics of an evaluation from its embeddings, which the first worker computes beside training.

Dense formulas in fp64 on the host replace the losses of training, which set switches of torch that apply to all
threads. Shapes: N pairs, B a batch, n rows of a chunk, D embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from raylens.config import ObjectiveConfig
from raylens.evaluate import ClassList, ImageFeatures, Metric, recalls, zero_shot_from_features
from raylens.models import ZeroShotClassifier
from raylens.train.evaluation.eval_data import RowKey

__all__ = ["Rows", "batch_loss", "pair_metrics", "zero_shot_accuracy"]

CHUNK = 256


@dataclass(frozen=True)
class Rows:
    """The embeddings of one worker, or of all workers together."""

    keys: tuple[RowKey, ...]
    columns: dict[str, NDArray[np.generic]]
    """Columns by name, with a row for each key."""

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Join the rows of all workers in the order of their keys, so that it does not matter who had which."""
        keys = list(chain.from_iterable(part.keys for part in parts))
        order = sorted(range(len(keys)), key=keys.__getitem__)
        columns = {name: np.concatenate([part.columns[name] for part in parts])[order] for name in parts[0].columns}
        return cls(tuple(keys[at] for at in order), columns)


def pair_metrics(
    rows: Rows, objective: ObjectiveConfig, log_scale: float, bias: float | None, global_batch: int
) -> list[Metric]:
    """Return the validation loss, a mean over whole batches if there is one, and the recalls in both directions."""
    if not len(rows.keys):
        return []
    image_ND, text_ND = (torch.from_numpy(rows.columns[name]).double() for name in ("image", "text"))
    batch = min(global_batch, len(rows.keys))
    starts = range(0, len(rows.keys) - batch + 1, batch)
    scale = min(float(np.exp(log_scale)), objective.max_logit_scale)
    losses = [batch_loss(image_ND[at : at + batch], text_ND[at : at + batch], objective, scale, bias) for at in starts]
    loss = Metric("validation_loss", float(np.mean(losses)), "min")
    return [loss, *recalls(image_ND.numpy(), text_ND.numpy(), rows.columns["text_key"].astype(np.int64))]


def batch_loss(
    image_BD: Tensor, text_BD: Tensor, objective: ObjectiveConfig, scale: float, bias: float | None
) -> float:
    """Return the objective on a batch: softmax, sigmoid or triplet; `raylens.objectives` names the sources."""
    total, column_B = 0.0, torch.full((len(image_BD),), -torch.inf, dtype=torch.float64)
    match_B = (image_BD * text_BD).sum(dim=1)
    for start in range(0, len(image_BD), CHUNK):
        cosine_nB = image_BD[start : start + CHUNK] @ text_BD.T
        match_n, own_n = match_B[start : start + CHUNK], torch.arange(len(cosine_nB))
        if objective.kind == "softmax":
            logit_nB = scale * cosine_nB
            total += float((logit_nB.logsumexp(dim=1) - 2 * scale * match_n).sum())
            column_B = torch.logaddexp(column_B, logit_nB.logsumexp(dim=0))
        elif objective.kind == "sigmoid":
            assert bias is not None
            logit_nB = -(scale * cosine_nB + bias)
            logit_nB[own_n, start + own_n] *= -1.0
            total -= float(functional.logsigmoid(logit_nB).sum())
        else:
            hinges_nB = (objective.margin + cosine_nB - match_n[:, None]).clamp(min=0)
            hinges_nB += (objective.margin + cosine_nB - match_B).clamp(min=0)
            hinges_nB[own_n, start + own_n] = 0.0
            total += float(hinges_nB.sum())
    if objective.kind == "softmax":
        total = (total + float(column_B.sum())) / 2
    return total / len(image_BD)


def zero_shot_accuracy(images: Rows, prompts: Rows, classes: ClassList) -> float | None:
    """Return the accuracy, or None if no image was readable."""
    if not len(images.keys):
        return None
    vectors = torch.from_numpy(prompts.columns["text"])
    classifier = ZeroShotClassifier.build(classes.prompts(), lambda _: vectors, 1.0)
    features = ImageFeatures(
        uids=tuple(f"{shard}/{sample}" for shard, sample in images.keys),
        labels_N=images.columns["label"].astype(np.int64),
        features_ND=images.columns["image"].astype(np.float32),
        unreadable=(),
    )
    return zero_shot_from_features(features, classifier, classes).accuracy
