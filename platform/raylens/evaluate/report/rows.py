"""The tables and images of a report: results as rows of plain values."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from raylens.errors import InputError
from raylens.evaluate.captions import NearestCaptions
from raylens.evaluate.classification import ZeroShotResult
from raylens.evaluate.intervals import clopper_pearson
from raylens.inputs import decode_image
from raylens.report import count_text

__all__ = ["ClassRow", "Confusion", "Example", "Thumbnail", "class_rows", "confusions", "examples", "notices"]

EDGE = 320
"""Twice the pixels of the place it has in the page, for dense screens."""
TINY = 96
"""Edge up to which pixels are shown as squares: smoothing would hide what the model saw."""


@dataclass(frozen=True)
class ClassRow:
    """One class, and how many of its images were right."""

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
class Thumbnail:
    """A picture for the page; ``uri`` is empty where the file cannot be read."""

    uri: str
    tiny: bool


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
    """Return the classes that have images, the least accurate first."""
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
    """Return pairs of true and predicted class, the most frequent first."""
    wrong_CC = result.confusion_CC.copy()
    np.fill_diagonal(wrong_CC, 0)
    pairs = [(int(wrong_CC[pair]), *pair) for pair in zip(*map(np.ndarray.tolist, wrong_CC.nonzero()), strict=True)]
    pairs.sort(key=lambda pair: (-pair[0], pair[1:]))
    return [
        Confusion(result.classes[true], result.classes[predicted], images, int(result.count_C[true]))
        for images, true, predicted in pairs[:most]
    ]


def examples(result: ZeroShotResult, nearest: Sequence[NearestCaptions]) -> list[Example]:
    """Return the images in their order, each with its row of the result's table if it has one."""
    rows = {uid: row for row, uid in enumerate(result.table["uid"].to_pylist())}
    return [_example(result, item, rows.get(item.uid)) for item in nearest]


def _example(result: ZeroShotResult, item: NearestCaptions, row: int | None) -> Example:
    picture = _thumbnail(item.image)
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


def _thumbnail(data: bytes) -> Thumbnail:
    """Make a small PNG or JPEG from the decoded pixels, so that nothing but pixels reaches the page."""
    try:
        image = decode_image(data, least=EDGE)
    except InputError:
        return Thumbnail("", tiny=False)
    tiny = max(image.size) <= TINY
    image.thumbnail((EDGE, EDGE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    kind = "PNG" if tiny else "JPEG"
    image.save(buffer, kind, **({} if tiny else {"quality": 85}))
    text = base64.b64encode(buffer.getvalue()).decode()
    return Thumbnail(f"data:image/{kind.lower()};base64,{text}", tiny)


def notices(result: ZeroShotResult) -> list[str]:
    """Say what a reader must know before believing the numbers."""
    notes = list(result.lint)
    if result.undecided:
        notes.append(
            f"{count_text(result.undecided, 'images')} with logits that are NaN or infinite count as wrong: the "
            "weights or the arithmetic are broken."
        )
    if result.unreadable:
        uid, reason = result.unreadable[0]
        notes.append(
            f"{count_text(len(result.unreadable), 'images')} could not be read and are in no number here; the first, "
            f"{uid}: {reason}"
        )
    empty = int((result.count_C == 0).sum())
    if empty:
        notes.append(
            f"{empty:,} of {count_text(len(result.classes), 'classes')} have no images; the mean per class leaves them "
            "out."
        )
    return notes
