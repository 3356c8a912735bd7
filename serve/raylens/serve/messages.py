"""Messages between the processes of the service: plain data that travels between them by pickle.

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
    """A text that is to be embedded."""

    text: str


@dataclass(frozen=True)
class Tokens:
    """A text as ids of the model's own tokenizer, with or without start and end tokens."""

    ids: tuple[int, ...]


@dataclass(frozen=True)
class ImageFile:
    """An image file that is to be embedded."""

    file: bytes


@dataclass(frozen=True)
class Failed:
    """An item without a result. It takes the item's position in requests to replicas and in their answers."""

    code: str
    message: str


Item = Text | Tokens | ImageFile | Failed


@dataclass(frozen=True)
class Embedded:
    """An item's embedding and how much of a text it covers."""

    vector_D: NDArray[np.float32]
    """The embedding ``[D]``, of unit norm."""
    tokens: int = 0
    """Number of tokens of a text, start and end tokens included, after truncation; 0 for an image."""
    truncated: bool = False
    """Whether the text was longer than the model's context."""


@dataclass(frozen=True)
class ModelIdentity:
    """The model version that a replica serves. Vectors of different digests must not be compared."""

    name: str
    number: int
    digest: str
    embed_dim: int
    context: int
    image_size: int
    logit_scale: float
    """The factor from cosine to logit, as the model learned it."""
    tokenizer: str
    """Hash of the tokenizer, which turns a text into ids."""
    preprocess: str
    """Hash of the preprocessing, which turns an image file into pixels."""


@dataclass(frozen=True)
class TowerPrecision:
    """The precision in which a replica computes one tower."""

    precision: Literal["fp32", "bf16"]
    cosine: float
    """Least cosine to fp32 over the inputs that a replica tries when it loads the version."""


@dataclass(frozen=True)
class Description:
    """The version that a replica serves, and the precision of its towers."""

    identity: ModelIdentity
    towers: Mapping[Tower, TowerPrecision]


@dataclass(frozen=True)
class ReplicaReport:
    """A replica's pending items, and what it measured since its last answer. It travels along with an answer."""

    replica: str
    """The replica's machine and process: ``host:pid``."""
    queued: Mapping[Tower, int]
    """Number of items that wait or are being computed, by tower."""
    measured: Mapping[tuple[Tower, Measure], Histogram]


@dataclass(frozen=True)
class Refusal:
    """A replica's refusal of a whole request. It is no exception, of which Ray Serve would log a trace each time."""

    code: Literal["overloaded", "other_version", "not_ready"]
    message: str
    retry_after_s: float = 1.0
    report: ReplicaReport | None = None


@dataclass(frozen=True)
class Embeddings:
    """Results in the order of the items, and the model version that computed them."""

    model: ModelIdentity
    results: Sequence[Embedded | Failed]
    report: ReplicaReport | None = None


class Embedder(Protocol):
    """The interface of a tower's replicas that the gateway calls."""

    async def embed(
        self, items: Sequence[Item], digest: str | None = None, *, bulk: bool = False
    ) -> Embeddings | Refusal:
        """Embed items independently, with the current version or with the one of ``digest``."""
        ...

    async def describe(self) -> Description:
        """Return the version that is served and the precision of its towers."""
        ...

    async def probe(self) -> Refusal | None:
        """Compute inputs whose vectors are known; return None if the vectors are the same."""
        ...
