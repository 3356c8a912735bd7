"""The features of images, computed once: every metric of an evaluation derives from this one pass.

Shapes: N images, D embedding.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from raylens.errors import ConfigError, DataError, InputError
from raylens.evaluate.labelled import LabelledImage

if TYPE_CHECKING:
    from raylens.registry import Encoder

__all__ = ["ImageFeatures", "image_features"]


@dataclass(frozen=True)
class ImageFeatures:
    """The embeddings of the readable images, and the reasons why others are unreadable."""

    uids: tuple[str, ...]
    labels_N: NDArray[np.int64]
    features_ND: NDArray[np.float32]
    unreadable: tuple[tuple[str, str], ...]
    """The uid of each unreadable image, with the reason."""


def image_features(
    encoder: "Encoder",
    images: Iterable[LabelledImage],
    batch: int = 64,
    progress: Callable[[int], None] | None = None,
) -> ImageFeatures:
    """Embed a stream of images, with at most one batch of files in memory.

    Args:
        encoder: the encoder of the images.
        images: the images, which are read once and in order.
        batch: the number of images embedded together.
        progress: a function that is called after each batch with the number of images read so far.

    Returns:
        Unit features ``[N, D]`` fp32 of the readable images, in order; unreadable images are listed.

    Raises:
        ConfigError: ``batch`` is not positive.
        DataError: there are no images, none is readable, or a uid occurs twice.
    """
    if batch < 1:
        raise ConfigError(f"batch = {batch}: it must be at least 1")
    kept: list[LabelledImage] = []
    parts: list[NDArray[np.float32]] = []
    unreadable: list[tuple[str, str]] = []
    for part in _batches(_unique(images), batch):
        readable, features, problems = _embed(encoder, part)
        # Only uid and label are kept: the files of all images may not fit into memory.
        kept += [LabelledImage(item.uid, b"", item.label) for item in readable]
        parts.append(features)
        unreadable += problems
        if progress is not None:
            progress(len(kept) + len(unreadable))
    if not kept:
        raise DataError(_nothing(unreadable))
    return ImageFeatures(
        uids=tuple(item.uid for item in kept),
        labels_N=np.array([item.label for item in kept], dtype=np.int64),
        features_ND=np.concatenate(parts),
        unreadable=tuple(unreadable),
    )


def _embed(
    encoder: "Encoder", part: list[LabelledImage]
) -> tuple[list[LabelledImage], NDArray[np.float32], list[tuple[str, str]]]:
    readable, pixels, problems = [], [], []
    for item in part:
        try:
            pixels.append(encoder.preprocess(item.image))
        except InputError as error:
            problems.append((item.uid, str(error)))
        else:
            readable.append(item)
    if not readable:
        return [], np.zeros((0, encoder.embed_dim), dtype=np.float32), problems
    return readable, encoder.encode_pixels(np.stack(pixels)).numpy(), problems


def _unique(images: Iterable[LabelledImage]) -> Iterator[LabelledImage]:
    seen: set[str] = set()
    for item in images:
        if item.uid in seen:
            raise DataError(f"uid {item.uid!r} occurs twice among the images: give each image a unique uid")
        seen.add(item.uid)
        yield item


def _batches(images: Iterator[LabelledImage], size: int) -> Iterator[list[LabelledImage]]:
    while part := list(islice(images, size)):
        yield part


def _nothing(unreadable: list[tuple[str, str]]) -> str:
    if not unreadable:
        return "there are no images to evaluate on: the iterable is empty (was a generator used twice?)"
    uid, reason = unreadable[0]
    return f"none of the {len(unreadable)} images is readable; the first, {uid!r}: {reason}"
