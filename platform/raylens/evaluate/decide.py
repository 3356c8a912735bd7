"""Decisions from features and class vectors, with ties against the model.

Shapes: N images, C classes, D embedding, k classes listed.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["TIE", "UNDECIDED", "Decisions", "decide"]

TIE = 1e-6
"""Cosines closer than this count as equal, because fp32 embeddings do not determine which is larger."""
UNDECIDED = -1
"""The prediction and rank of an image with a logit that is not finite."""

CHUNK = 4096


@dataclass(frozen=True)
class Decisions:
    """The decisions of a classifier about each image."""

    prediction_N: NDArray[np.int64]
    """The predicted class of each image, or `UNDECIDED`."""
    rank_N: NDArray[np.int64]
    """1 if the true class leads alone; otherwise 1 + the number of classes that are ahead of it or tie with it."""
    top_ids_Nk: NDArray[np.int64]
    """The classes with the largest logits, largest first."""
    top_logits_Nk: NDArray[np.float32]


def decide(
    features_ND: NDArray[np.floating[Any]],
    class_CD: NDArray[np.floating[Any]],
    labels_N: NDArray[np.int64],
    logit_scale: float,
    k: int = 5,
) -> Decisions:
    """Classify unit features by the nearest unit class vector.

    An image counts as correct only if its true class leads every other class by more than `TIE` in cosine. A model
    that separates no classes therefore scores 0, whatever their order; if ties went to the first class, it would score
    100% on a set with images of that class alone. The prediction of an image that is not correct is the best of the
    other classes, so that accuracy counts exactly the diagonal of the confusion matrix.

    An image with a logit that is not finite is not correct, and its prediction is `UNDECIDED`.
    """
    starts = range(0, len(features_ND), CHUNK)
    parts = [
        _decide_chunk(features_ND[at : at + CHUNK], class_CD, labels_N[at : at + CHUNK], logit_scale, k)
        for at in starts
    ]
    return Decisions(
        prediction_N=np.concatenate([part.prediction_N for part in parts]),
        rank_N=np.concatenate([part.rank_N for part in parts]),
        top_ids_Nk=np.concatenate([part.top_ids_Nk for part in parts]),
        top_logits_Nk=np.concatenate([part.top_logits_Nk for part in parts]),
    )


def _decide_chunk(
    features_nD: NDArray[np.floating[Any]],
    class_CD: NDArray[np.floating[Any]],
    labels_n: NDArray[np.int64],
    logit_scale: float,
    k: int,
) -> Decisions:
    # In fp64, because an fp32 matrix product gives equal columns different last digits.
    with np.errstate(invalid="ignore", over="ignore"):
        cosine_nC = features_nD.astype(np.float64) @ class_CD.astype(np.float64).T
        logits_nC = (logit_scale * cosine_nC).astype(np.float32)
    finite_n = np.asarray(np.isfinite(logits_nC).all(axis=1))
    cosine_nC = np.where(finite_n.reshape(-1, 1), cosine_nC, 0.0)
    own_n1 = np.take_along_axis(cosine_nC, labels_n[:, None], axis=1)
    # The true class itself is counted too, hence no "1 +".
    rank_n = (cosine_nC >= own_n1 - TIE).sum(axis=1)
    others_nC = cosine_nC.copy()
    np.put_along_axis(others_nC, labels_n[:, None], -np.inf, axis=1)
    prediction_n = np.where(rank_n == 1, labels_n, others_nC.argmax(axis=1))
    top_ids_nk = np.argsort(-cosine_nC, axis=1, kind="stable")[:, :k]
    return Decisions(
        prediction_N=np.where(finite_n, prediction_n, UNDECIDED),
        rank_N=np.where(finite_n, rank_n, UNDECIDED),
        top_ids_Nk=top_ids_nk,
        top_logits_Nk=np.take_along_axis(logits_nC, top_ids_nk, axis=1),
    )
