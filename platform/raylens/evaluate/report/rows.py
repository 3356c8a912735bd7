"""The tables of a report: results as rows of plain values."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raylens.evaluate.captions import NearestCaptions
from raylens.evaluate.classification import ZeroShotResult
from raylens.evaluate.intervals import clopper_pearson
from raylens.evaluate.report.thumbnails import Thumbnail, thumbnail

__all__ = ["ClassRow", "Confusion", "Example", "class_rows", "confusions", "examples", "notices"]


@dataclass(frozen=True)
class ClassRow:
    """One class: how many of its images were right."""

    name: str
    images: int
    right: int
    accuracy: float
    low: float
    high: float
    taken_for: str
    """The wrong class that its images were given most often; empty if none."""


@dataclass(frozen=True)
class Confusion:
    """Images of one class that were taken for another."""

    true: str
    predicted: str
    images: int
    of: int


@dataclass(frozen=True)
class Example:
    """An image with what the model said about it."""

    uid: str
    picture: Thumbnail
    captions: tuple[tuple[str, float], ...]
    known: bool
    """Whether the image belongs to the evaluation set; without it the rest is empty."""
    label: str = ""
    prediction: str = ""
    right: bool = False


def class_rows(result: ZeroShotResult) -> list[ClassRow]:
    """The classes that have images, the least accurate first."""
    rows = []
    for index in np.flatnonzero(result.count_C):
        images, right = int(result.count_C[index]), int(result.confusion_CC[index, index])
        wrong_C = result.confusion_CC[index].copy()
        wrong_C[index] = 0
        taken_for = result.classes[int(wrong_C.argmax())] if wrong_C.any() else ""
        low, high = clopper_pearson(right, images, result.confidence)
        rows.append(ClassRow(result.classes[index], images, right, right / images, low, high, taken_for))
    return sorted(rows, key=lambda row: row.accuracy)


def confusions(result: ZeroShotResult, most: int = 12) -> list[Confusion]:
    """Pairs of true and predicted class, the most frequent first."""
    wrong_CC = result.confusion_CC.copy()
    np.fill_diagonal(wrong_CC, 0)
    pairs = [(int(wrong_CC[pair]), *pair) for pair in zip(*map(np.ndarray.tolist, wrong_CC.nonzero()), strict=True)]
    pairs.sort(key=lambda found: (-found[0], found[1:]))
    return [
        Confusion(result.classes[true], result.classes[predicted], images, int(result.count_C[true]))
        for images, true, predicted in pairs[:most]
    ]


def examples(result: ZeroShotResult, nearest: Sequence[NearestCaptions]) -> list[Example]:
    """The images in their order, each with its row of the result's table if it has one."""
    rows = {uid: row for row, uid in enumerate(result.table["uid"].to_pylist())}
    return [_example(result, item, rows.get(item.uid)) for item in nearest]


def _example(result: ZeroShotResult, item: NearestCaptions, row: int | None) -> Example:
    picture = thumbnail(item.image)
    if row is None:
        return Example(item.uid, picture, item.captions, known=False)
    label, prediction, rank = (result.table[key][row].as_py() for key in ("label", "prediction", "rank"))
    return Example(
        uid=item.uid,
        picture=picture,
        captions=item.captions,
        known=True,
        label=result.classes[label],
        prediction="undecided" if prediction is None else result.classes[prediction],
        right=rank == 1,
    )


def notices(result: ZeroShotResult) -> list[str]:
    """What a reader must know before believing the numbers."""
    found = list(result.lint)
    if result.undecided:
        found.append(
            f"{result.undecided:,} images have logits that are not finite and count as wrong: the weights or the "
            "arithmetic are broken."
        )
    if result.unreadable:
        uid, reason = result.unreadable[0]
        found.append(
            f"{len(result.unreadable):,} images could not be read and are in no number here; the first, {uid}: {reason}"
        )
    empty = int((result.count_C == 0).sum())
    if empty:
        found.append(
            f"{empty:,} of {len(result.classes):,} classes have no images; the mean per class leaves them out."
        )
    return found
