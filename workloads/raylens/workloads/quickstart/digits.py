"""scikit-learn's 1,797 scans of handwritten digits as image-text pairs: real data that needs no download."""

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from raylens.data import NewSample
from raylens.data.pack import pack
from raylens.evaluate import ClassList
from raylens.storage import Store

__all__ = ["CLASSES", "TEMPLATES", "DigitShards", "pack_digits"]

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEMPLATES = (
    "a scan of the digit {}.",
    "the number {}, written by hand.",
    "a handwritten {}.",
    "a small picture of the figure {}.",
)
HELD_OUT = 0.2
SHADES = ("thin", "plain", "bold")
PHRASES = (
    "a scan of the digit {name}",
    "the digit {name}, scanned from a form",
    "a {shade} handwritten {name}",
    "the number {numeral}, written by hand",
    "somebody wrote a {name}",
    "a small grey picture of the figure {name}",
    "{name} in {shade} strokes",
    "handwriting: the numeral {numeral} ({name})",
    "a {shade} {name} from a postal form",
    "this is the number {name}",
)


@dataclass(frozen=True)
class DigitShards:
    """The stores of the packed scans, and their numbers."""

    train: Store
    held_out: Store
    train_samples: int
    held_out_samples: int


def pack_digits(store: Store) -> DigitShards:
    """Write the scans as shards under ``train/`` and ``heldout/``, divided by sample; the same bytes every time.

    The held-out folder also gets ``classes.json``: names of the classes and prompt templates.
    """
    samples = list(_samples())
    held_out = [sample for sample in samples if _is_held_out(sample.key)]
    train = [sample for sample in samples if not _is_held_out(sample.key)]
    shards = DigitShards(store / "train", store / "heldout", len(train), len(held_out))
    pack(train, shards.train, per_shard=256)
    pack(held_out, shards.held_out, per_shard=256)
    ClassList(name="digits", classes=CLASSES, templates=TEMPLATES).write(shards.held_out)
    return shards


def _samples() -> Iterator[NewSample]:
    digits = load_digits()
    scans, labels = digits.images, digits.target
    inks = scans.reshape(len(scans), -1).mean(axis=1)
    borders = np.quantile(inks, [1 / 3, 2 / 3])
    for number, (scan, label, ink) in enumerate(zip(scans, labels, inks, strict=True)):
        key = f"scan-{number:04d}"
        shade = SHADES[int(np.searchsorted(borders, ink))]
        meta = {"label": int(label), "source": "sklearn.datasets.load_digits", "index": number}
        yield NewSample(key, _png(scan), "png", _caption(key, int(label), shade), meta)


def _png(scan: NDArray[np.float64]) -> bytes:
    """Encode ink of 0 to 16 as a grey image, dark on light as on paper."""
    grey = 255 - np.clip(np.rint(scan * (255 / 16)), 0, 255)
    sink = io.BytesIO()
    Image.fromarray(grey.astype(np.uint8)).save(sink, format="PNG")
    return sink.getvalue()


def _caption(key: str, label: int, shade: str) -> str:
    """Choose a caption by the sample's key; it names the digit, or how thin or bold its strokes are."""
    phrase = PHRASES[_draw(key, "caption") % len(PHRASES)]
    return phrase.format(name=CLASSES[label], numeral=label, shade=shade)


def _is_held_out(key: str) -> bool:
    return _draw(key, "split") % 1000 < HELD_OUT * 1000


def _draw(key: str, purpose: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{purpose} {key}".encode(), digest_size=8).digest(), "big")
