"""Response schemas of the HTTP API."""

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
    """The reason why one item has no result."""

    code: str
    message: str


Values = list[float] | list[int] | str


class EmbeddingObject(BaseModel):
    """One item's embedding, or its error."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: Values | None = None
    embeddings: dict[EmbeddingType, Values] | None = None
    """Embeddings by type, where the request has ``embedding_types``."""
    truncated: Literal[True] | None = None
    """Present if the text was longer than the model's context."""
    error: ItemError | None = None


class Usage(BaseModel):
    """The number of tokens of the request's texts, start and end tokens included."""

    prompt_tokens: int
    total_tokens: int


class ListResponse(BaseModel):
    """The part that all responses with a list share: the model and the space of its vectors."""

    object: Literal["list"] = "list"
    model: str
    version: int
    space: str
    """Digest of the model's files: vectors may be compared if their spaces are equal."""

    @property
    def entries(self) -> list[BaseModel]:
        """The entries of the list, whose type depends on the kind of response."""
        return list(getattr(self, "data", ()))


def to_json(response: ListResponse) -> bytes:
    """Encode a response as JSON.

    The list is encoded entry by entry, so that in a thread the event loop has its turn between two entries; pydantic
    would hold the interpreter's lock from the first number of a large response to the last.
    """
    entries = ",".join(entry.model_dump_json(exclude_none=True) for entry in response.entries)
    shell = response.model_copy(update={"data": []}).model_dump_json(exclude_none=True)
    # This never matches within a string of the response, where the quotes would be escaped.
    return shell.replace('"data":[]', f'"data":[{entries}]', 1).encode()


class EmbeddingResponse(ListResponse):
    """The response of ``POST /v1/embeddings``."""

    data: list[EmbeddingObject]
    usage: Usage


class SimilarityObject(BaseModel):
    """The cosines of one query to the documents, or its error."""

    object: Literal["similarity"] = "similarity"
    index: int
    scores: list[float | None] | None = None
    """Cosines in the order of the request's documents, or of ``documents``; null for a document with an error."""
    documents: list[int] | None = None
    """Indices of the best documents, best first, where the request has ``top_k``."""
    error: ItemError | None = None


class SimilarityResponse(ListResponse):
    """The response of ``POST /v1/similarity``."""

    data: list[SimilarityObject]
    document_errors: dict[int, ItemError]
    """Errors of documents, by the index of the document."""
    usage: Usage


class ClassificationObject(BaseModel):
    """The classification of one image, or its error."""

    object: Literal["classification"] = "classification"
    index: int
    label: str | None = None
    probabilities: list[float] | None = None
    """Probabilities in the order of the request's classes."""
    error: ItemError | None = None


class ClassifyResponse(ListResponse):
    """The response of ``POST /v1/classify``."""

    data: list[ClassificationObject]
    classes: list[str]


class TowerInfo(BaseModel):
    """The precision in which a tower computes."""

    precision: Literal["fp32", "bf16"]
    cosine_to_fp32: float
    """The least cosine over the inputs that a replica tries when it loads the version."""


class Limits(BaseModel):
    """The limits of one request, by which clients split long lists."""

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
    """Context length in tokens, start and end tokens included."""
    image_size: int
    tokenizer: str
    """Hash of the tokenizer, which turns texts into ids."""
    preprocessing: str
    """Hash of the preprocessing, which turns image files into pixels."""
    normalised: Literal[True] = True
    towers: dict[str, TowerInfo]
    limits: Limits


class ModelList(BaseModel):
    """The response of ``GET /v1/models``."""

    object: Literal["list"] = "list"
    data: list[ModelInfo]
