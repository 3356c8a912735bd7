"""Bodies of requests: OpenAI's embeddings schema with images beside texts, similarity, and zero-shot classification."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

__all__ = [
    "Body",
    "ClassifyRequest",
    "EmbeddingRequest",
    "EmbeddingType",
    "EncodingFormat",
    "InputItem",
    "SimilarityRequest",
]

EncodingFormat = Literal["float", "base64"]
EmbeddingType = Literal["float", "float16", "int8", "binary"]
Priority = Literal["interactive", "bulk"]
NonEmpty = Field(min_length=1)


class Body(BaseModel):
    """A request's body, or a part of one: unknown keys are refused, never dropped."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class InputItem(Body):
    """One thing to embed: ``{"text": ...}``, ``{"image": "data:image/png;base64,..."}`` or ``{"tokens": [...]}``."""

    text: str | None = None
    image: str | None = None
    """A data URI, or where the service fetches, a URL."""
    tokens: (
        Annotated[
            tuple[int, ...], NonEmpty, BeforeValidator(lambda value: _tuple(value), json_schema_input_type=list[int])
        ]
        | None
    ) = None
    """Ids of the model's own tokenizer."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(value is not None for value in (self.text, self.image, self.tokens)) != 1:
            raise ValueError("give one of 'text', 'image' and 'tokens'")
        return self


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _as_item(value: Any, modality: str) -> Any:
    if isinstance(value, str):
        return {modality: value}
    return {"tokens": value} if isinstance(value, list) else value


def _is_ids(value: list[Any]) -> bool:
    return bool(value) and all(isinstance(one, int) and not isinstance(one, bool) for one in value)


def _as_items(value: Any, modality: str = "text") -> Any:
    """OpenAI's forms, a string, a list of strings, token ids and lists of them, as a list of items."""
    if isinstance(value, str):
        return [{modality: value}]
    if not isinstance(value, list):
        raise ValueError("must be a string, or a list of strings and objects")  # noqa: TRY004 (pydantic's protocol)
    return [{"tokens": value}] if _is_ids(value) else [_as_item(item, modality) for item in value]


Items = Annotated[
    list[InputItem],
    NonEmpty,
    BeforeValidator(
        _as_items,
        json_schema_input_type=str
        | Annotated[list[int], NonEmpty]
        | Annotated[list[str | Annotated[list[int], NonEmpty] | InputItem], NonEmpty],
    ),
]


class EmbeddingRequest(Body):
    """``POST /v1/embeddings``."""

    input: Items = Field(
        description="A string, token ids, or a list of strings, lists of token ids, and objects `{text}`, `{image}`, "
        "`{tokens}` in any order.",
        examples=[["a photo of a cat", {"image": "data:image/png;base64,iVBORw0KGgo..."}]],
    )
    model: str | None = None
    """Name, or name@version; left out, it is the first that is served."""
    modality: Literal["text", "image"] = "text"
    """What strings are; images are data URIs."""
    encoding_format: EncodingFormat = "float"
    """``base64`` is the little-endian bytes."""
    dimensions: Annotated[int, Field(ge=1)] | None = None
    """Keep the first components and bring the vector to unit norm again."""
    embedding_types: Annotated[list[EmbeddingType], NonEmpty] | None = None
    """Give ``embeddings`` of these types in place of ``embedding``."""
    priority: Priority = "interactive"
    """``bulk`` waits while anything else does."""
    user: str | None = None
    """As OpenAI's; not used."""

    @model_validator(mode="before")
    @classmethod
    def _strings(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("modality") == "image" and isinstance(value.get("input"), str | list):
            return value | {"input": _as_items(value["input"], "image")}
        return value


class SimilarityRequest(Body):
    """``POST /v1/similarity``."""

    queries: Items
    documents: Items
    """Texts or images, as the queries."""
    top_k: Annotated[int, Field(ge=1)] | None = None
    """Give the best documents of each query alone, best first."""
    model: str | None = None
    priority: Priority = "interactive"


class ClassifyRequest(Body):
    """``POST /v1/classify``."""

    images: Annotated[list[str], NonEmpty]
    """Data URIs."""
    classes: Annotated[list[str], NonEmpty]
    templates: Annotated[list[str], NonEmpty] | None = None
    """Prompts with ``{}`` where the class name goes; their embeddings are averaged."""
    model: str | None = None
    priority: Priority = "interactive"
