"""The bodies that a client sends and the answers that it reads, independent of how they are transported.

Shapes: n items, C classes, D embedding.
"""

import base64
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import httpx
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from raylens.errors import OverloadedError, ServingError
from raylens.serve.api.responses import ClassifyResponse, EmbeddingResponse, ItemError, Limits

__all__ = [
    "Item",
    "Vectors",
    "classify_bodies",
    "embed_bodies",
    "inputs",
    "parse_response",
    "probabilities",
    "retry_delay",
    "vectors",
]

Item = str | bytes
Vectors = NDArray[np.float32]
ResponseT = TypeVar("ResponseT", bound=BaseModel)
FRAME_BYTES = 200
"""An upper bound, in bytes, of what a body holds beside its items and options."""
RETRIED_STATUSES = frozenset({429, 502, 503})
"""Statuses after which a request is sent again: nothing was begun, or repeating it does no harm."""
MAX_RETRY_DELAY_S = 30.0


def embed_bodies(
    items: Sequence[Item], options: dict[str, Any], limits: Limits | None = None
) -> Iterator[dict[str, Any]]:
    """Yield requests for texts, and image files as bytes: as many as the limits require, one without limits."""
    for part in _parts(items, options, limits):
        yield {"input": inputs(part), "encoding_format": "base64", **options}


def inputs(items: Sequence[Item]) -> list[dict[str, str]]:
    """Return texts and image files in the form that the API takes."""
    return [{"text": item} if isinstance(item, str) else {"image": _data_uri(item)} for item in items]


def classify_bodies(
    images: Sequence[bytes], options: dict[str, Any], limits: Limits | None = None
) -> Iterator[dict[str, Any]]:
    """Yield classification requests for image files, split as in `embed_bodies`."""
    for part in _parts(images, options, limits):
        yield {"images": [_data_uri(image) for image in part], **options}


def vectors(answers: Iterable[EmbeddingResponse]) -> Vectors:
    """Return the embeddings of all requests in order, ``[n, D]``.

    Raises:
        ServingError: an item has no embedding, or the model changed in between.
    """
    rows: list[Vectors] = []
    spaces: set[tuple[str, int]] = set()
    for answer in answers:
        spaces.add((answer.model, answer.version))
        for item in answer.data:
            if not isinstance(item.embedding, str):
                raise _item_failure(len(rows), item.error)
            rows.append(np.frombuffer(base64.b64decode(item.embedding), dtype="<f4"))
    if len(spaces) > 1:
        raise ServingError(f"the model changed between requests ({sorted(spaces)}): embed all items again")
    return np.stack(rows).astype(np.float32, copy=False) if rows else np.zeros((0, 0), dtype=np.float32)


def probabilities(answers: Iterable[ClassifyResponse], classes: int) -> Vectors:
    """Return the probabilities of all requests in order, ``[n, C]``.

    Raises:
        ServingError: an image has no probabilities.
    """
    rows: list[list[float]] = []
    for answer in answers:
        for image in answer.data:
            if image.probabilities is None:
                raise _item_failure(len(rows), image.error)
            rows.append(image.probabilities)
    return np.array(rows, dtype=np.float32).reshape(len(rows), classes)


def parse_response(response: httpx.Response, kind: type[ResponseT]) -> ResponseT:
    """Parse the body of an answer.

    Raises:
        OverloadedError: the service refused the request as overloaded, at the last attempt too.
        ServingError: the answer is an error, or comes from something else than this service.
    """
    if response.is_error:
        message = f"{response.url} answered {response.status_code}: {_message(response)}"
        raise (OverloadedError if response.status_code in RETRIED_STATUSES else ServingError)(message)
    try:
        return kind.model_validate_json(response.content)
    except ValidationError as error:
        raise ServingError(f"{response.url} is not a raylens service of this version: {error}") from None


def retry_delay(attempt: int, response: httpx.Response | None) -> float | None:
    """Return the seconds until a request is sent again, with random jitter; None if it is not to be sent again.

    Args:
        attempt: number of the attempt that failed, from 0.
        response: the answer, or None if none came.
    """
    if response is not None and response.status_code not in RETRIED_STATUSES:
        return None
    retry_after = response.headers.get("retry-after", "") if response is not None else ""
    minimum = float(retry_after) if retry_after.isdecimal() else 0.0
    # Jitter keeps clients that were refused together from coming back together.
    return min(MAX_RETRY_DELAY_S, max(minimum, 0.25 * 2.0**attempt) * random.uniform(1.0, 1.5))  # noqa: S311 (no secret)


def _parts(items: Sequence[Any], options: dict[str, Any], limits: Limits | None) -> Iterator[list[Any]]:
    if limits is None:
        yield from [list(items)] if items else []
        return
    frame = FRAME_BYTES + _size(options)
    part: list[Any] = []
    size = frame
    for item in items:
        more = 4 * len(item) // 3 + FRAME_BYTES if isinstance(item, bytes) else _size({"text": item}) + 1
        if part and (len(part) == limits.max_items or size + more > limits.max_body_bytes):
            yield part
            part, size = [], frame
        part.append(item)
        size += more
    if part:
        yield part


def _size(part: dict[str, Any]) -> int:
    """Return the size in bytes that a part takes in a body."""
    return len(json.dumps(part, ensure_ascii=False).encode("utf-8", "surrogatepass"))


def _data_uri(image: bytes) -> str:
    # The server looks at the bytes, not at the name of the type.
    return f"data:image/octet-stream;base64,{base64.b64encode(image).decode('ascii')}"


def _message(response: httpx.Response) -> str:
    """Return the error's message, or the text itself where Ray Serve answers instead of the API."""
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return response.text[:500]


def _item_failure(index: int, error: ItemError | None) -> ServingError:
    return ServingError(f"item {index}: " + (f"{error.code}: {error.message}" if error else "no result and no error"))
