"""The HTTP API's bodies: OpenAI's embeddings schema, with images beside texts, and zero-shot classification."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

__all__ = [
    "ClassificationObject",
    "ClassifyRequest",
    "ClassifyResponse",
    "EmbeddingObject",
    "EmbeddingRequest",
    "EmbeddingResponse",
    "EncodingFormat",
    "InputItem",
    "ItemError",
    "ModelInfo",
    "ModelList",
    "Usage",
]

EncodingFormat = Literal["float", "base64"]
NonEmpty = Field(min_length=1)


class Body(BaseModel):
    """A request's body, or a part of one: unknown keys are refused, never dropped."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class InputItem(Body):
    """One thing to embed: ``{"text": ...}`` or ``{"image": "data:image/png;base64,..."}``."""

    text: str | None = None
    image: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.text is None) == (self.image is None):
            raise ValueError("give either 'text' or 'image'")
        return self


def _as_items(value: Any) -> Any:
    """OpenAI's forms, one string or a list of strings, as a list of items."""
    if isinstance(value, str):
        return [{"text": value}]
    if not isinstance(value, list):
        raise ValueError("must be a string, or a list of strings and objects")  # noqa: TRY004 (pydantic's protocol)
    return [{"text": item} if isinstance(item, str) else item for item in value]


class EmbeddingRequest(Body):
    """``POST /v1/embeddings``."""

    input: Annotated[list[InputItem], NonEmpty, BeforeValidator(_as_items)]
    model: str | None = None
    """Name, or name@version; left out, it is the model that is served."""
    encoding_format: EncodingFormat = "float"
    """``base64`` is the little-endian fp32 bytes."""


class ClassifyRequest(Body):
    """``POST /v1/classify``."""

    images: Annotated[list[str], NonEmpty]
    """Data URIs."""
    classes: Annotated[list[str], NonEmpty]
    templates: Annotated[list[str], NonEmpty] | None = None
    """Prompts with ``{}`` where the class name goes; their embeddings are averaged."""
    model: str | None = None


class ItemError(BaseModel):
    """Why one item has no result."""

    code: str
    message: str


class EmbeddingObject(BaseModel):
    """One item's embedding, or its error."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str | None = None
    truncated: Literal[True] | None = None
    """Present where a text was longer than the model's context."""
    error: ItemError | None = None


class Usage(BaseModel):
    """Tokens of the request's texts, start and end tokens included."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingResponse(BaseModel):
    """Answer of ``POST /v1/embeddings``."""

    object: Literal["list"] = "list"
    data: list[EmbeddingObject]
    model: str
    version: int
    usage: Usage


class ClassificationObject(BaseModel):
    """One image's classification, or its error."""

    object: Literal["classification"] = "classification"
    index: int
    label: str | None = None
    probabilities: list[float] | None = None
    """In the order of the request's classes."""
    error: ItemError | None = None


class ClassifyResponse(BaseModel):
    """Answer of ``POST /v1/classify``."""

    object: Literal["list"] = "list"
    data: list[ClassificationObject]
    classes: list[str]
    model: str
    version: int


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


class ModelList(BaseModel):
    """Answer of ``GET /v1/models``."""

    object: Literal["list"] = "list"
    data: list[ModelInfo]
