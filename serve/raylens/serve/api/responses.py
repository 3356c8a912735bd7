"""Bodies of answers."""

from typing import Literal

from pydantic import BaseModel

from raylens.serve.api.requests import EmbeddingType

__all__ = [
    "ClassificationObject",
    "ClassifyResponse",
    "EmbeddingObject",
    "EmbeddingResponse",
    "ItemError",
    "Limits",
    "ModelInfo",
    "ModelList",
    "SimilarityObject",
    "SimilarityResponse",
    "TowerInfo",
    "Usage",
    "to_json",
]


class ItemError(BaseModel):
    """Why one item has no result."""

    code: str
    message: str


Values = list[float] | list[int] | str


class EmbeddingObject(BaseModel):
    """One item's embedding, or its error."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: Values | None = None
    embeddings: dict[EmbeddingType, Values] | None = None
    """Where the request names ``embedding_types``."""
    truncated: Literal[True] | None = None
    """Present where a text was longer than the model's context."""
    error: ItemError | None = None


class Usage(BaseModel):
    """Tokens of the request's texts, start and end tokens included."""

    prompt_tokens: int
    total_tokens: int


class ListResponse(BaseModel):
    """What every answer names: the model, and the space that its vectors are of."""

    object: Literal["list"] = "list"
    model: str
    version: int
    space: str
    """Vectors may be compared if their spaces are equal: the digest of the model's files."""

    @property
    def entries(self) -> list[BaseModel]:
        """Of the list, of which each kind of answer has its own."""
        return list(getattr(self, "data", ()))


def to_json(answer: ListResponse) -> bytes:
    """The body of an answer as JSON.

    Its list is written entry by entry: in a thread, the event loop has its turn between two of them, where pydantic
    would hold Python's lock from the first number of a large answer to the last.
    """
    entries = ",".join(entry.model_dump_json(exclude_none=True) for entry in answer.entries)
    shell = answer.model_copy(update={"data": []}).model_dump_json(exclude_none=True)
    # Not in a string of the answer: there the quotes would be escaped.
    return shell.replace('"data":[]', f'"data":[{entries}]', 1).encode()


class EmbeddingResponse(ListResponse):
    """Answer of ``POST /v1/embeddings``."""

    data: list[EmbeddingObject]
    usage: Usage


class SimilarityObject(BaseModel):
    """One query's cosines to the documents, or its error."""

    object: Literal["similarity"] = "similarity"
    index: int
    scores: list[float | None] | None = None
    """In the order of the documents, or of ``documents``; null for a document that has an error."""
    documents: list[int] | None = None
    """Indices of the best documents, best first, where the request has ``top_k``."""
    error: ItemError | None = None


class SimilarityResponse(ListResponse):
    """Answer of ``POST /v1/similarity``."""

    data: list[SimilarityObject]
    document_errors: dict[int, ItemError]
    """By the index of the document."""
    usage: Usage


class ClassificationObject(BaseModel):
    """One image's classification, or its error."""

    object: Literal["classification"] = "classification"
    index: int
    label: str | None = None
    probabilities: list[float] | None = None
    """In the order of the request's classes."""
    error: ItemError | None = None


class ClassifyResponse(ListResponse):
    """Answer of ``POST /v1/classify``."""

    data: list[ClassificationObject]
    classes: list[str]


class TowerInfo(BaseModel):
    """How a tower computes."""

    precision: Literal["fp32", "bf16"]
    cosine_to_fp32: float
    """The least over the inputs that a replica tries when it starts."""


class Limits(BaseModel):
    """What one request may ask for."""

    max_items: int
    max_body_bytes: int
    max_text_chars: int
    max_pixels: int


class ModelInfo(BaseModel):
    """A model that is served; two vectors may be compared if their models' digests are equal."""

    id: str
    object: Literal["model"] = "model"
    version: int
    digest: str
    dimension: int
    context: int
    """Tokens, start and end tokens included."""
    image_size: int
    tokenizer: str
    """Hash."""
    preprocessing: str
    """Hash."""
    normalised: Literal[True] = True
    towers: dict[str, TowerInfo]
    limits: Limits


class ModelList(BaseModel):
    """Answer of ``GET /v1/models``."""

    object: Literal["list"] = "list"
    data: list[ModelInfo]
