"""The captions nearest to an image, and the choice of images to show.

Shapes: B images, M captions, D embedding.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from raylens.errors import ConfigError, InputError
from raylens.evaluate.classification import ZeroShotResult
from raylens.evaluate.labelled import LabelledImage

if TYPE_CHECKING:
    from raylens.registry import Encoder

__all__ = ["NearestCaptions", "nearest_captions", "pick_examples"]


@dataclass(frozen=True)
class NearestCaptions:
    """An image and the captions nearest to it, nearest first."""

    uid: str
    image: bytes
    captions: tuple[tuple[str, float], ...]
    """Pairs of caption and cosine; empty if the image's embedding is not finite."""


def nearest_captions(
    encoder: "Encoder", images: Iterable[LabelledImage], captions: Sequence[str], k: int = 3
) -> list[NearestCaptions]:
    """Return the ``k`` nearest captions of each of a few images; a repeated caption counts once.

    Equal cosines keep the order of the captions.

    Raises:
        ConfigError: there are no captions, or ``k`` is below 1.
        InputError: an image cannot be read; the message names its uid.
    """
    distinct = list(dict.fromkeys(captions))
    if not distinct or k < 1:
        raise ConfigError(f"{len(distinct)} captions, k = {k}: both must be at least 1")
    items = list(images)
    if not items:
        return []
    image_BD = encoder.encode_pixels(np.stack([_pixels(encoder, item) for item in items])).numpy()
    text_MD = encoder.encode_texts(distinct).numpy()
    with np.errstate(invalid="ignore"):
        cosine_BM = image_BD.astype(np.float64) @ text_MD.astype(np.float64).T
    nearest_of_each = []
    for item, cosine_M in zip(items, cosine_BM, strict=True):
        order = [int(at) for at in np.argsort(-cosine_M, kind="stable") if np.isfinite(cosine_M[at])]
        nearest = tuple((distinct[at], float(cosine_M[at])) for at in order[:k])
        nearest_of_each.append(NearestCaptions(item.uid, item.image, nearest))
    return nearest_of_each


def pick_examples(result: ZeroShotResult, right: int = 4, wrong: int = 8) -> tuple[str, ...]:
    """Choose images to show, by uid: some correct ones, then some wrong ones.

    The choice is the same for the same result, and spread over the classes: the first of each class, then the second
    of each, and so on.
    """
    labels = result.table["label"].to_pylist()
    met = [0] * len(result.classes)
    turns = []
    for at, label in enumerate(labels):
        is_right = bool(result.rank_N[at] == 1)
        turns.append((met[label], at, is_right))
        met[label] += 1
    turns.sort()
    uids = result.table["uid"].to_pylist()
    chosen = [uids[at] for _, at, is_right in turns if is_right][:right]
    return tuple(chosen + [uids[at] for _, at, is_right in turns if not is_right][:wrong])


def _pixels(encoder: "Encoder", item: LabelledImage) -> "np.typing.NDArray[np.uint8]":
    try:
        return encoder.preprocess(item.image)
    except InputError as error:
        raise InputError(f"image {item.uid!r}: {error}") from None
