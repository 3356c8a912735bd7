"""Between HTTP bodies and the messages of the replicas."""

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
OFF = Failed("url_not_allowed", "URLs are not fetched: send the image itself as 'data:image/png;base64,...'")


def to_item(item: InputItem, max_text_chars: int) -> Item:
    """An input to what a replica embeds; what cannot be is already failed here, alone."""
    if item.image is not None:
        return to_image_file(item.image)
    if item.tokens is not None:
        return Tokens(item.tokens)
    text = item.text or ""
    if len(text) > max_text_chars:
        return Failed("text_too_long", f"the text has {len(text)} characters, over the limit of {max_text_chars}")
    return Text(text)


def is_url(uri: str) -> bool:
    """Something to fetch, and not a data URI."""
    return URL.match(uri) is not None


def to_image_file(uri: str) -> ImageFile | Failed:
    """A data URI to the file in it."""
    if is_url(uri):
        return OFF
    head = DATA_URI.match(uri)
    if head is None:
        return Failed("invalid_image", "an image must be a data URI such as 'data:image/png;base64,...'")
    try:
        return ImageFile(base64.b64decode(uri[head.end() :], validate=True))
    except (binascii.Error, ValueError) as error:
        return Failed("invalid_image", f"the data URI's base64 cannot be decoded: {error}")


def embedding_response(answer: Embeddings, request: EmbeddingRequest) -> EmbeddingResponse:
    """Results to the body of the answer."""
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
    """Embeddings of the queries, then the documents, to cosines."""
    queries, documents = answer.results[: len(request.queries)], answer.results[len(request.queries) :]
    good = [place for place, one in enumerate(documents) if isinstance(one, Embedded)]
    document_ND = np.array([one.vector_D for one in documents if isinstance(one, Embedded)], dtype=np.float32)
    data = []
    for index, query in enumerate(queries):
        if isinstance(query, Failed):
            data.append(SimilarityObject(index=index, error=_item_error(query)))
            continue
        cosines_N = document_ND @ query.vector_D if good else np.zeros(0, dtype=np.float32)
        data.append(_ranked(index, cosines_N, good, len(documents), request.top_k))
    failed = {place: _item_error(one) for place, one in enumerate(documents) if isinstance(one, Failed)}
    return SimilarityResponse(data=data, document_errors=failed, usage=_usage(answer), **_named(answer.model))


def _ranked(
    index: int, cosines_N: NDArray[np.float32], good: Sequence[int], count: int, top_k: int | None
) -> SimilarityObject:
    scores = cosines_N.tolist()
    if top_k is None:
        by_place = dict(zip(good, scores, strict=True))
        return SimilarityObject(index=index, scores=[by_place.get(place) for place in range(count)])
    best = np.argsort(-cosines_N, kind="stable")[:top_k].tolist()  # stable: equal ones in the order of the request
    return SimilarityObject(
        index=index, documents=[good[place] for place in best], scores=[scores[place] for place in best]
    )


def classify_response(
    model: ModelIdentity, results: Sequence[NDArray[np.float32] | Failed], classes: Sequence[str]
) -> ClassifyResponse:
    """Probabilities ``[C]`` to the body of the answer."""
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


def model_info(of_towers: Sequence[Description], settings: ServeSettings) -> ModelInfo:
    """An entry of ``GET /v1/models``."""
    model = of_towers[0].identity
    towers = {tower: condition for one in of_towers for tower, condition in one.towers.items()}
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
            tower: TowerInfo(precision=one.precision, cosine_to_fp32=round(one.cosine, 6))
            for tower, one in sorted(towers.items())
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
    """The first components of a vector, brought to unit norm again, ``[K]``."""
    if dimensions is None:
        return vector_D
    # In double precision: the squares of a few tiny components are zero in single, and their norm with them.
    kept_K = vector_D[:dimensions].astype(np.float64)
    norm = float(np.linalg.norm(kept_K))
    return (kept_K / norm if norm > 0 else kept_K).astype(np.float32)


def typed(vector_D: Vector, kind: EmbeddingType) -> NDArray[Any]:
    """A vector in one of the types.

    ``int8`` takes the vector's largest component for 127: compare by cosine, since the factor differs from vector to
    vector. ``binary`` is the signs, eight to a byte, the first component in the highest bit: compare by Hamming
    distance.
    """
    if kind == "int8":
        largest = float(np.abs(vector_D).max())
        small_D: NDArray[np.int8] = np.rint(vector_D * (127 / largest if largest > 0 else 0)).astype(np.int8)
        return small_D
    if kind == "binary":
        return np.packbits(vector_D > 0)
    return vector_D.astype("<f2" if kind == "float16" else "<f4")


def encoded(values: NDArray[Any], encoding: EncodingFormat) -> Any:
    """As a list of numbers, or as the base64 of its little-endian bytes."""
    if encoding == "base64":
        return base64.b64encode(values.tobytes()).decode("ascii")
    return values.tolist()
