"""Conversion between HTTP bodies and the messages of the replicas.

Shapes: C classes, D embedding, K kept components, N documents.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raylens.serve.api.requests import EmbeddingRequest, EmbeddingType, EncodingFormat, InputItem, SimilarityRequest
from raylens.serve.api.responses import (
    ClassificationObject,
    ClassifyResponse,
    EmbeddingObject,
    EmbeddingResponse,
    ItemError,
    Limits,
    ModelInfo,
    SimilarityObject,
    SimilarityResponse,
    TowerInfo,
    Usage,
)
from raylens.serve.config import ServeSettings
from raylens.serve.messages import (
    Description,
    Embedded,
    Embeddings,
    Failed,
    ImageFile,
    Item,
    ModelIdentity,
    Text,
    Tokens,
)

__all__ = [
    "classify_response",
    "embedding_response",
    "encoded",
    "is_url",
    "model_info",
    "shortened",
    "similarity_response",
    "to_image_file",
    "to_item",
    "typed",
]

Vector = NDArray[np.float32]
DATA_URI = re.compile(r"data:image/[a-z0-9.+-]{1,50};base64,", re.IGNORECASE)
URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
URLS_OFF = Failed("url_not_allowed", "URLs are not fetched: send the image itself as 'data:image/png;base64,...'")


def to_item(item: InputItem, max_text_chars: int) -> Item:
    """Convert an input to an item of a replica; return `Failed` where the input cannot be embedded."""
    if item.image is not None:
        return to_image_file(item.image)
    if item.tokens is not None:
        return Tokens(item.tokens)
    text = item.text or ""
    if len(text) > max_text_chars:
        return Failed("text_too_long", f"the text has {len(text)} characters, over the limit of {max_text_chars}")
    return Text(text)


def is_url(uri: str) -> bool:
    """Return whether this is a URL to fetch, and not a data URI."""
    return URL.match(uri) is not None


def to_image_file(uri: str) -> ImageFile | Failed:
    """Decode a data URI to the image file in it."""
    if is_url(uri):
        return URLS_OFF
    head = DATA_URI.match(uri)
    if head is None:
        return Failed("invalid_image", "an image must be a data URI such as 'data:image/png;base64,...'")
    try:
        return ImageFile(base64.b64decode(uri[head.end() :], validate=True))
    except (binascii.Error, ValueError) as error:
        return Failed("invalid_image", f"the data URI's base64 cannot be decoded: {error}")


def embedding_response(answer: Embeddings, request: EmbeddingRequest) -> EmbeddingResponse:
    """Convert the embeddings of a request to the body of the response."""
    return EmbeddingResponse(
        data=[_embedding(index, result, request) for index, result in enumerate(answer.results)],
        usage=_usage(answer),
        **_named(answer.model),
    )


def _embedding(index: int, result: Embedded | Failed, request: EmbeddingRequest) -> EmbeddingObject:
    if isinstance(result, Failed):
        return EmbeddingObject(index=index, error=_item_error(result))
    vector_K = shortened(result.vector_D, request.dimensions)
    body = EmbeddingObject(index=index, truncated=True if result.truncated else None)
    if request.embedding_types is None:
        body.embedding = encoded(typed(vector_K, "float"), request.encoding_format)
    else:
        kinds = request.embedding_types
        body.embeddings = {kind: encoded(typed(vector_K, kind), request.encoding_format) for kind in kinds}
    return body


def similarity_response(answer: Embeddings, request: SimilarityRequest) -> SimilarityResponse:
    """Compute the cosines of queries and documents; ``answer`` has the queries' embeddings, then the documents'."""
    queries, documents = answer.results[: len(request.queries)], answer.results[len(request.queries) :]
    good = [index for index, document in enumerate(documents) if isinstance(document, Embedded)]
    vectors = [document.vector_D for document in documents if isinstance(document, Embedded)]
    document_ND = np.array(vectors, dtype=np.float32)
    data = []
    for index, query in enumerate(queries):
        if isinstance(query, Failed):
            data.append(SimilarityObject(index=index, error=_item_error(query)))
            continue
        cosines_N = document_ND @ query.vector_D if good else np.zeros(0, dtype=np.float32)
        data.append(_ranked(index, cosines_N, good, len(documents), request.top_k))
    failed = {index: _item_error(document) for index, document in enumerate(documents) if isinstance(document, Failed)}
    return SimilarityResponse(data=data, document_errors=failed, usage=_usage(answer), **_named(answer.model))


def _ranked(
    index: int, cosines_N: NDArray[np.float32], good: Sequence[int], count: int, top_k: int | None
) -> SimilarityObject:
    scores = cosines_N.tolist()
    if top_k is None:
        by_document = dict(zip(good, scores, strict=True))
        return SimilarityObject(index=index, scores=[by_document.get(document) for document in range(count)])
    best = np.argsort(-cosines_N, kind="stable")[:top_k].tolist()  # stable: equal scores keep the order of the request
    return SimilarityObject(
        index=index, documents=[good[rank] for rank in best], scores=[scores[rank] for rank in best]
    )


def classify_response(
    model: ModelIdentity, results: Sequence[NDArray[np.float32] | Failed], classes: Sequence[str]
) -> ClassifyResponse:
    """Convert each image's probabilities ``[C]`` to the body of the response."""
    return ClassifyResponse(
        data=[
            ClassificationObject(index=index, error=_item_error(result))
            if isinstance(result, Failed)
            else ClassificationObject(index=index, label=classes[int(result.argmax())], probabilities=result.tolist())
            for index, result in enumerate(results)
        ],
        classes=list(classes),
        **_named(model),
    )


def model_info(descriptions: Sequence[Description], settings: ServeSettings) -> ModelInfo:
    """Return a model's entry of ``GET /v1/models``, from the descriptions of its text and image replicas."""
    model = descriptions[0].identity
    towers = {tower: settled for description in descriptions for tower, settled in description.towers.items()}
    return ModelInfo(
        id=model.name,
        version=model.number,
        digest=model.digest,
        dimension=model.embed_dim,
        context=model.context,
        image_size=model.image_size,
        tokenizer=model.tokenizer,
        preprocessing=model.preprocess,
        towers={
            tower: TowerInfo(precision=settled.precision, cosine_to_fp32=round(settled.cosine, 6))
            for tower, settled in sorted(towers.items())
        },
        limits=Limits.model_validate(settings, from_attributes=True),
    )


def _named(model: ModelIdentity) -> dict[str, Any]:
    return {"model": model.name, "version": model.number, "space": model.digest}


def _usage(answer: Embeddings) -> Usage:
    tokens = sum(result.tokens for result in answer.results if isinstance(result, Embedded))
    return Usage(prompt_tokens=tokens, total_tokens=tokens)


def _item_error(failed: Failed) -> ItemError:
    return ItemError(code=failed.code, message=failed.message)


def shortened(vector_D: Vector, dimensions: int | None) -> Vector:
    """Return the first components of a vector, normalised again, ``[K]``."""
    if dimensions is None:
        return vector_D
    # In double precision: in single, the squares of a few tiny components may be zero, and so would be their norm.
    kept_K = vector_D[:dimensions].astype(np.float64)
    norm = float(np.linalg.norm(kept_K))
    return (kept_K / norm if norm > 0 else kept_K).astype(np.float32)


def typed(vector_D: Vector, kind: EmbeddingType) -> NDArray[Any]:
    """Convert a vector to one of the types of the API.

    ``int8`` scales the vector so that its largest component is 127: compare by cosine, because the factor differs from
    vector to vector. ``binary`` packs the signs, eight to a byte, the first component in the highest bit: compare by
    Hamming distance.
    """
    if kind == "int8":
        largest = float(np.abs(vector_D).max())
        small_D: NDArray[np.int8] = np.rint(vector_D * (127 / largest if largest > 0 else 0)).astype(np.int8)
        return small_D
    if kind == "binary":
        return np.packbits(vector_D > 0)
    return vector_D.astype("<f2" if kind == "float16" else "<f4")


def encoded(values: NDArray[Any], encoding: EncodingFormat) -> Any:
    """Encode values as a list of numbers, or as the base64 of their little-endian bytes."""
    if encoding == "base64":
        return base64.b64encode(values.tobytes()).decode("ascii")
    return values.tolist()
