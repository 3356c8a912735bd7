"""What the processes of the service say to each other. Plain data: it travels between them by pickle.

Shapes: D embedding.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from raylens.serve.histograms import Histogram, Measure

__all__ = [
    "Description",
    "Embedded",
    "Embedder",
    "Embeddings",
    "Failed",
    "ImageFile",
    "Item",
    "ModelIdentity",
    "Refusal",
    "ReplicaReport",
    "Text",
    "Tokens",
    "Tower",
    "TowerPrecision",
]

Tower = Literal["text", "image"]


@dataclass(frozen=True)
class Text:
    """A text to embed."""

    text: str


@dataclass(frozen=True)
class Tokens:
    """A text as the model's own token ids, with or without start and end marks."""

    ids: tuple[int, ...]


@dataclass(frozen=True)
class ImageFile:
    """An image file to embed."""

    file: bytes


@dataclass(frozen=True)
class Failed:
    """An item that has no result. Stands at the item's place on the way in as on the way out."""

    code: str
    message: str


Item = Text | Tokens | ImageFile | Failed


@dataclass(frozen=True)
class Embedded:
    """An item's embedding."""

    vector_D: NDArray[np.float32]
    """Of unit norm."""
    tokens: int = 0
    """Of a text, marks included, after truncation; 0 for an image."""
    truncated: bool = False
    """The text was longer than the context."""


@dataclass(frozen=True)
class ModelIdentity:
    """The model that a replica serves. Vectors of two digests are not of one space."""

    name: str
    number: int
    digest: str
    embed_dim: int
    context: int
    image_size: int
    logit_scale: float
    """From cosine to logit, as the model learned it."""
    tokenizer: str
    """Hash of what turns a text into ids."""
    preprocess: str
    """Hash of what turns an image into pixels."""


@dataclass(frozen=True)
class TowerPrecision:
    """How a replica computes one tower."""

    precision: Literal["fp32", "bf16"]
    cosine: float
    """Least cosine to fp32, of the texts or images that are tried at the start."""


@dataclass(frozen=True)
class Description:
    """What a replica serves, and how."""

    identity: ModelIdentity
    towers: Mapping[Tower, TowerPrecision]


@dataclass(frozen=True)
class ReplicaReport:
    """What a replica has done since it last answered, and what it has to do. Goes along with an answer."""

    replica: str
    """Its machine and process."""
    queued: Mapping[Tower, int]
    """Items that wait or are computed."""
    measured: Mapping[tuple[Tower, Measure], Histogram]


@dataclass(frozen=True)
class Refusal:
    """A replica's no to a whole request. Not an exception: Ray Serve would log a trace for each, when load is high."""

    code: Literal["overloaded", "other_version", "not_ready"]
    message: str
    retry_after_s: float = 1.0
    report: ReplicaReport | None = None


@dataclass(frozen=True)
class Embeddings:
    """Results in the order of the items, and the model they come from."""

    model: ModelIdentity
    results: Sequence[Embedded | Failed]
    report: ReplicaReport | None = None


class Embedder(Protocol):
    """What the HTTP side needs of the replicas of a tower."""

    async def embed(
        self, items: Sequence[Item], digest: str | None = None, *, bulk: bool = False
    ) -> Embeddings | Refusal:
        """Embed items, each for itself, with the current version, or the version of that ``digest``."""
        ...

    async def describe(self) -> Description:
        """What is served."""
        ...

    async def probe(self) -> Refusal | None:
        """Embed a text or an image whose vector is known; None if it comes out again."""
        ...
