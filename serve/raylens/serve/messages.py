"""What the processes of the service say to each other. Plain data: it travels between them by pickle.

Shapes: D embedding, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Backend",
    "Classification",
    "Classified",
    "Embedded",
    "Embeddings",
    "Failed",
    "Identity",
    "Item",
    "Picture",
    "Refusal",
    "Text",
]


@dataclass(frozen=True)
class Text:
    """A text to embed."""

    text: str


@dataclass(frozen=True)
class Picture:
    """An image file to embed."""

    file: bytes


@dataclass(frozen=True)
class Failed:
    """An item that has no result. Stands at the item's place on the way in as on the way out."""

    code: str
    message: str


Item = Text | Picture | Failed


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
class Classified:
    """An image's zero-shot classification."""

    probabilities_C: NDArray[np.float32]


@dataclass(frozen=True)
class Identity:
    """The model that a replica serves. Vectors of two digests are not of one space."""

    name: str
    number: int
    digest: str
    embed_dim: int
    context: int
    image_size: int
    tokenizer: str
    """Hash of what turns a text into ids."""
    preprocess: str
    """Hash of what turns an image into pixels."""

    def answers_to(self, model: str | None) -> bool:
        """Whether a request for ``model`` (None: for whatever is served) is meant for this one."""
        return model in (None, self.name, f"{self.name}@{self.number}")


@dataclass(frozen=True)
class Refusal:
    """A replica's no to a whole request. Not an exception: Ray Serve would log a trace for each, when load is high."""

    code: Literal["overloaded", "model_not_found", "not_ready"]
    message: str


@dataclass(frozen=True)
class Embeddings:
    """Results in the order of the items, and the model they come from."""

    model: Identity
    results: Sequence[Embedded | Failed]


@dataclass(frozen=True)
class Classification:
    """Results in the order of the images, and the model they come from."""

    model: Identity
    results: Sequence[Classified | Failed]


class Backend(Protocol):
    """What the HTTP side needs of a replica."""

    async def embed(self, items: Sequence[Item], model: str | None = None) -> Embeddings | Refusal:
        """Embed items, each for itself."""
        ...

    async def classify(
        self,
        images: Sequence[Picture | Failed],
        prompts: Sequence[Sequence[str]],
        model: str | None = None,
    ) -> Classification | Refusal:
        """Zero-shot probabilities over ``C`` classes, each given by its prompts."""
        ...

    async def describe(self) -> Identity:
        """The model served."""
        ...

    async def probe(self) -> Refusal | None:
        """Embed a text and an image; None if both become unit vectors."""
        ...
