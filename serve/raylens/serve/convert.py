"""Between HTTP bodies and the messages of the replicas."""

import base64
import binascii
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from raylens.serve.messages import (
    Classification,
    Embedded,
    Embeddings,
    Failed,
    Identity,
    Item,
    Picture,
    Text,
)
from raylens.serve.schema import (
    ClassificationObject,
    ClassifyResponse,
    EmbeddingObject,
    EmbeddingResponse,
    EncodingFormat,
    InputItem,
    ItemError,
    ModelInfo,
    Usage,
)

__all__ = ["classify_response", "embedding_response", "model_info", "to_item", "to_picture"]

DATA_URI = re.compile(r"data:image/[a-z0-9.+-]{1,50};base64,", re.IGNORECASE)
URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def to_item(item: InputItem, max_text_chars: int) -> Item:
    """An input to what a replica embeds; what cannot be is already failed here, alone."""
    if item.image is not None:
        return to_picture(item.image)
    text = item.text or ""
    if len(text) > max_text_chars:
        return Failed("text_too_long", f"the text has {len(text)} characters, over the limit of {max_text_chars}")
    return Text(text)


def to_picture(uri: str) -> Picture | Failed:
    """A data URI to the file in it. The server never fetches anything: it would reach what the caller cannot."""
    if URL.match(uri):
        return Failed("url_not_allowed", "URLs are not fetched: send the image itself as 'data:image/png;base64,...'")
    head = DATA_URI.match(uri)
    if head is None:
        return Failed("invalid_image", "an image must be a data URI such as 'data:image/png;base64,...'")
    try:
        return Picture(base64.b64decode(uri[head.end() :], validate=True))
    except (binascii.Error, ValueError) as error:
        return Failed("invalid_image", f"the data URI's base64 cannot be decoded: {error}")


def embedding_response(answer: Embeddings, encoding: EncodingFormat) -> EmbeddingResponse:
    """Results to the body of the answer."""
    tokens = sum(result.tokens for result in answer.results if isinstance(result, Embedded))
    return EmbeddingResponse(
        data=[
            EmbeddingObject(index=index, error=_item_error(result))
            if isinstance(result, Failed)
            else EmbeddingObject(
                index=index,
                embedding=_encoded(result.vector_D, encoding),
                truncated=True if result.truncated else None,
            )
            for index, result in enumerate(answer.results)
        ],
        model=answer.model.name,
        version=answer.model.number,
        usage=Usage(prompt_tokens=tokens, total_tokens=tokens),
    )


def classify_response(answer: Classification, classes: Sequence[str]) -> ClassifyResponse:
    """Results to the body of the answer."""
    return ClassifyResponse(
        data=[
            ClassificationObject(index=index, error=_item_error(result))
            if isinstance(result, Failed)
            else ClassificationObject(
                index=index,
                label=classes[int(result.probabilities_C.argmax())],
                probabilities=result.probabilities_C.tolist(),
            )
            for index, result in enumerate(answer.results)
        ],
        classes=list(classes),
        model=answer.model.name,
        version=answer.model.number,
    )


def model_info(model: Identity) -> ModelInfo:
    """An entry of ``GET /v1/models``."""
    return ModelInfo(
        id=model.name,
        version=model.number,
        digest=model.digest,
        dimension=model.embed_dim,
        context=model.context,
        image_size=model.image_size,
        tokenizer=model.tokenizer,
        preprocessing=model.preprocess,
    )


def _encoded(vector_D: NDArray[np.float32], encoding: EncodingFormat) -> list[float] | str:
    if encoding == "base64":
        return base64.b64encode(vector_D.astype("<f4").tobytes()).decode("ascii")
    floats: list[float] = vector_D.tolist()
    return floats


def _item_error(failed: Failed) -> ItemError:
    return ItemError(code=failed.code, message=failed.message)
