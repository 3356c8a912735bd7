"""A worker's share of what a run is evaluated on, read once and kept in its memory.

Shapes: n samples of the share, S image size, T tokens.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from raylens.data.reader import Request, open_data
from raylens.errors import InputError
from raylens.evaluate import LabelledShards
from raylens.inputs import Preprocess, Tokenizer

__all__ = ["Held", "HeldSets", "Share", "held_labelled", "held_pairs", "held_prompts"]

THREADS = 2
Place = tuple[int, int]


class Share(NamedTuple):
    """A worker among all."""

    rank: int
    workers: int


@dataclass(frozen=True)
class Held:
    """Rows that are embedded; those of all workers together are in the order of their places."""

    places: tuple[Place, ...]
    names: tuple[str, ...] = ()
    image_nSSC: NDArray[np.uint8] | None = None
    ids_nT: NDArray[np.int32] | None = None
    labels_n: tuple[int, ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()
    """Names and reasons; they have no row."""

    def __len__(self) -> int:
        return len(self.places)


@dataclass(frozen=True)
class HeldSets:
    """Everything that a worker embeds in an evaluation."""

    pairs: Held | None
    labelled: tuple[tuple[Held, Held], ...]
    """Images and prompts."""

    @property
    def unreadable(self) -> int:
        """Images."""
        sets = [*(images for images, _ in self.labelled), *([self.pairs] if self.pairs else [])]
        return sum(len(one.unreadable) for one in sets)


def held_pairs(home: str, used: int, share: Share, preprocess: Preprocess, tokenizer: Tokenizer, context: int) -> Held:
    """The share of ``used`` evenly spaced pairs, each with the first of its captions.

    Raises:
        StorageError: the store does not answer.
        ManifestError: an object is not what was indexed.
    """
    opened = open_data(home)
    chosen = np.arange(used, dtype=np.int64) * len(opened.manifest) // used
    mine = chosen[share.rank :: share.workers]

    def read(request: Request) -> list[tuple[_Row, str]]:
        pairs = opened.read(request)
        return [(_Row.of((0, at), str(at), pair.image, preprocess), pair.captions[0]) for at, pair in pairs]

    with ThreadPoolExecutor(THREADS, thread_name_prefix="raylens-held") as threads:
        rows = list(chain.from_iterable(threads.map(read, opened.requests(mine))))
    ids_nT, _ = tokenizer([caption for row, caption in rows if row.pixels is not None], context)
    return replace(_held([row for row, _ in rows], preprocess.size), ids_nT=ids_nT)


def held_labelled(shards: LabelledShards, share: Share, preprocess: Preprocess) -> Held:
    """The share of the images, whole shards of it.

    Raises:
        StorageError: the store does not answer.
        DataError: a sample has no label, or one that is no class.
    """
    rows, labels = [], []
    for at in range(share.rank, len(shards.shards), share.workers):
        for number, (image, _) in enumerate(shards.samples(shards.shards[at])):
            rows.append(_Row.of((at, number), image.uid, image.image, preprocess))
            labels.append(image.label)
    kept = tuple(label for row, label in zip(rows, labels, strict=True) if row.pixels is not None)
    return replace(_held(rows, preprocess.size), labels_n=kept)


def held_prompts(shards: LabelledShards, share: Share, tokenizer: Tokenizer, context: int) -> Held:
    """The share of all prompts of all classes."""
    flat = [(at, prompt) for at, prompt in enumerate(chain.from_iterable(shards.classes.prompts()))]
    mine = flat[share.rank :: share.workers]
    ids_nT, _ = tokenizer([prompt for _, prompt in mine], context)
    return Held(tuple((0, at) for at, _ in mine), ids_nT=ids_nT)


class _Row(NamedTuple):
    place: Place
    name: str
    pixels: NDArray[np.uint8] | None
    problem: str = ""

    @classmethod
    def of(cls, place: Place, name: str, image: bytes, preprocess: Preprocess) -> Self:
        try:
            return cls(place, name, preprocess(image))
        except InputError as error:
            return cls(place, name, None, str(error))


def _held(rows: Sequence[_Row], size: int) -> Held:
    good = [row for row in rows if row.pixels is not None]
    pixels = [row.pixels for row in good if row.pixels is not None]
    return Held(
        places=tuple(row.place for row in good),
        names=tuple(row.name for row in good),
        image_nSSC=np.stack(pixels) if pixels else np.zeros((0, size, size, 3), dtype=np.uint8),
        unreadable=tuple((row.name, row.problem) for row in rows if row.pixels is None),
    )
