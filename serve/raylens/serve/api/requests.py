"""Request schemas: OpenAI's embeddings with images beside texts, similarity, and zero-shot classification."""

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
    """The body of a request, or a part of it: unknown keys are refused, never dropped."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class InputItem(Body):
    """One item to embed: ``{"text": ...}``, ``{"image": "data:image/png;base64,..."}`` or ``{"tokens": [...]}``."""

    text: str | None = None
    image: str | None = None
    """A data URI, or a URL where the service fetches images."""
    tokens: (
        Annotated[
            tuple[int, ...], NonEmpty, BeforeValidator(lambda value: _tuple(value), json_schema_input_type=list[int])
        ]
        | None
    ) = None
    """Token ids of the model's own tokenizer."""

    @model_validator(mode="after")
    def _has_one_modality(self) -> Self:
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
    return bool(value) and all(isinstance(number, int) and not isinstance(number, bool) for number in value)


def _as_items(value: Any, modality: str = "text") -> Any:
    """Convert OpenAI's input forms (a string, strings, token ids, lists of token ids) to a list of items."""
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
    """The body of ``POST /v1/embeddings``."""

    input: Items = Field(
        description="A string, token ids, or a list of strings, lists of token ids, and objects `{text}`, `{image}`, "
        "`{tokens}` in any order.",
        examples=[["a photo of a cat", {"image": "data:image/png;base64,iVBORw0KGgo..."}]],
    )
    model: str | None = None
    """``name`` or ``name@version``; without it, the first model that is served."""
    modality: Literal["text", "image"] = "text"
    """What the strings of ``input`` are; images are data URIs."""
    encoding_format: EncodingFormat = "float"
    """``base64`` encodes the little-endian bytes of the values."""
    dimensions: Annotated[int, Field(ge=1)] | None = None
    """Keep this many leading components and normalise the vector again."""
    embedding_types: Annotated[list[EmbeddingType], NonEmpty] | None = None
    """Return ``embeddings`` of these types in place of ``embedding``."""
    priority: Priority = "interactive"
    """``bulk`` lets interactive requests go first."""
    user: str | None = None
    """Accepted for compatibility with OpenAI, and not used."""

    @model_validator(mode="before")
    @classmethod
    def _strings(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("modality") == "image" and isinstance(value.get("input"), str | list):
            return value | {"input": _as_items(value["input"], "image")}
        return value


class SimilarityRequest(Body):
    """The body of ``POST /v1/similarity``."""

    queries: Items
    documents: Items
    """Texts or images, in the same forms as the queries."""
    top_k: Annotated[int, Field(ge=1)] | None = None
    """Return only this many best documents of each query, best first."""
    model: str | None = None
    priority: Priority = "interactive"


class ClassifyRequest(Body):
    """The body of ``POST /v1/classify``."""

    images: Annotated[list[str], NonEmpty]
    """Data URIs, or URLs where the service fetches images."""
    classes: Annotated[list[str], NonEmpty]
    templates: Annotated[list[str], NonEmpty] | None = None
    """Prompts with ``{}`` in place of the class name; their embeddings are averaged."""
    model: str | None = None
    priority: Priority = "interactive"
