"""Retrieval between images and their texts (Radford et al. 2021, appendix E.1), exact and with ties against the model.

Shapes: N pairs, U distinct texts, n rows of a chunk, D embedding.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raylens.evaluate.decide import TIE
from raylens.evaluate.metrics import Metric

__all__ = ["recalls"]

CHUNK = 1024
FLOATS = NDArray[np.floating[Any]]


def recalls(
    image_ND: FLOATS, text_ND: FLOATS, text_N: NDArray[np.int64], ks: Sequence[int] = (1, 5, 10)
) -> list[Metric]:
    """Return the recall at each k in both directions, as ``image_to_text_recall_1`` and so on.

    Pairs with equal texts share one text: it is the match of each of their images, and any of them is its match. A
    match is among the first k if fewer than k others are as near or nearer (within `TIE` in cosine), so a model that
    separates nothing has a recall of 0. An embedding that is not finite matches nothing.

    Args:
        image_ND: the unit embeddings of the images.
        text_ND: the unit embeddings of the texts, one per image.
        text_N: a number for each text, equal for equal texts.
        ks: the values of k.

    Returns:
        Shares of the N images (images to texts) and of the U texts (texts to images).
    """
    _, first_U, of_N = np.unique(text_N, return_index=True, return_inverse=True)
    text_UD = text_ND[first_U].astype(np.float64)
    rank_N = np.empty(len(image_ND), dtype=np.int64)
    best_U = np.full(len(first_U), np.iinfo(np.int64).max)
    for start in range(0, len(image_ND), CHUNK):
        rows = slice(start, start + CHUNK)
        rank_N[rows] = _ranks(_cosines(image_ND[rows], text_UD), of_N[rows])
    for start in range(0, len(first_U), CHUNK):
        rows = slice(start, start + CHUNK)
        best_U[rows] = _best_ranks(_cosines(text_UD[rows], image_ND), of_N, np.arange(len(first_U))[rows])
    ways = {"image_to_text": rank_N, "text_to_image": best_U}
    return [Metric(f"{way}_recall_{k}", float((ranks <= k).mean()), "max") for way, ranks in ways.items() for k in ks]


def _cosines(query_nD: FLOATS, key_ND: FLOATS) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", over="ignore"):
        cosine_nN = query_nD.astype(np.float64) @ key_ND.astype(np.float64).T
    return np.where(np.isfinite(cosine_nN), cosine_nN, -np.inf)


def _ranks(cosine_nU: NDArray[np.float64], own_n: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rank of each row's own column, counted from 1."""
    own_n1 = np.take_along_axis(cosine_nU, own_n[:, None], axis=1)
    ranks: NDArray[np.int64] = (cosine_nU >= own_n1 - TIE).sum(axis=1)
    return np.where(np.isfinite(own_n1[:, 0]), ranks, np.iinfo(np.int64).max)


def _best_ranks(
    cosine_nN: NDArray[np.float64], of_N: NDArray[np.int64], text_n: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the rank of each text's nearest own image among the images of other texts."""
    own_nN = of_N[None, :] == text_n[:, None]
    best_n1 = np.where(own_nN, cosine_nN, -np.inf).max(axis=1, keepdims=True)
    ahead_n = ((cosine_nN >= best_n1 - TIE) & ~own_nN).sum(axis=1)
    return np.where(np.isfinite(best_n1[:, 0]), ahead_n + 1, np.iinfo(np.int64).max)
