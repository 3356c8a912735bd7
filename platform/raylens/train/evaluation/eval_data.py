"""A worker's share of the evaluation data, read once and kept in memory.

Shapes: n samples of the share, S image size, T tokens.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from raylens.data import Request, open_reader
from raylens.errors import InputError
from raylens.evaluate import LabelledShards
from raylens.inputs import Preprocess, Tokenizer

__all__ = ["EvalData", "EvalShard", "WorkerShare", "read_labelled", "read_pairs", "read_prompts"]

THREADS = 2
RowKey = tuple[int, int]


class WorkerShare(NamedTuple):
    """The rank of a worker among all workers."""

    rank: int
    workers: int


@dataclass(frozen=True)
class EvalShard:
    """The samples that one worker embeds; those of all workers together are ordered by their keys."""

    keys: tuple[RowKey, ...]
    names: tuple[str, ...] = ()
    image_nSSC: NDArray[np.uint8] | None = None
    ids_nT: NDArray[np.int32] | None = None
    labels_n: tuple[int, ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()
    """Names of the unreadable images, which have no row, and the reasons."""

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class EvalData:
    """All data that one worker embeds in an evaluation."""

    pairs: EvalShard | None
    labelled: tuple[tuple[EvalShard, EvalShard], ...]
    """The images and the prompts of each labelled set."""

    @property
    def unreadable(self) -> int:
        """Return the number of unreadable images."""
        sets = [*(images for images, _ in self.labelled), *([self.pairs] if self.pairs else [])]
        return sum(len(shard.unreadable) for shard in sets)


def read_pairs(
    uri: str, used: int, share: WorkerShare, preprocess: Preprocess, tokenizer: Tokenizer, context: int
) -> EvalShard:
    """Read the worker's share of ``used`` evenly spaced pairs, each with the first of its captions.

    Raises:
        StorageError: the store does not answer.
        ManifestError: an object is not what was indexed.
    """
    reader = open_reader(uri)
    chosen = np.arange(used, dtype=np.int64) * len(reader.manifest) // used
    mine = chosen[share.rank :: share.workers]

    def read(request: Request) -> list[tuple[_Row, str]]:
        pairs = reader.read(request)
        return [(_Row.of((0, at), str(at), pair.image, preprocess), pair.captions[0]) for at, pair in pairs]

    with ThreadPoolExecutor(THREADS, thread_name_prefix="raylens-eval-data") as threads:
        rows = list(chain.from_iterable(threads.map(read, reader.requests(mine))))
    ids_nT, _ = tokenizer([caption for row, caption in rows if row.pixels is not None], context)
    return replace(_shard_of([row for row, _ in rows], preprocess.size), ids_nT=ids_nT)


def read_labelled(shards: LabelledShards, share: WorkerShare, preprocess: Preprocess) -> EvalShard:
    """Read the worker's share of the labelled images: whole shards of them.

    Raises:
        StorageError: the store does not answer.
        DataError: a sample has no label, or its label is not a class.
    """
    rows, labels = [], []
    for at in range(share.rank, len(shards.shards), share.workers):
        for number, (image, _) in enumerate(shards.samples(shards.shards[at])):
            rows.append(_Row.of((at, number), image.uid, image.image, preprocess))
            labels.append(image.label)
    kept = tuple(label for row, label in zip(rows, labels, strict=True) if row.pixels is not None)
    return replace(_shard_of(rows, preprocess.size), labels_n=kept)


def read_prompts(shards: LabelledShards, share: WorkerShare, tokenizer: Tokenizer, context: int) -> EvalShard:
    """Tokenise the worker's share of the prompts of all classes."""
    flat = [(at, prompt) for at, prompt in enumerate(chain.from_iterable(shards.classes.prompts()))]
    mine = flat[share.rank :: share.workers]
    ids_nT, _ = tokenizer([prompt for _, prompt in mine], context)
    return EvalShard(tuple((0, at) for at, _ in mine), ids_nT=ids_nT)


class _Row(NamedTuple):
    key: RowKey
    name: str
    pixels: NDArray[np.uint8] | None
    problem: str = ""

    @classmethod
    def of(cls, key: RowKey, name: str, image: bytes, preprocess: Preprocess) -> Self:
        try:
            return cls(key, name, preprocess(image))
        except InputError as error:
            return cls(key, name, None, str(error))


def _shard_of(rows: Sequence[_Row], size: int) -> EvalShard:
    good = [row for row in rows if row.pixels is not None]
    pixels = [row.pixels for row in good if row.pixels is not None]
    return EvalShard(
        keys=tuple(row.key for row in good),
        names=tuple(row.name for row in good),
        image_nSSC=np.stack(pixels) if pixels else np.zeros((0, size, size, 3), dtype=np.uint8),
        unreadable=tuple((row.name, row.problem) for row in rows if row.pixels is None),
    )
