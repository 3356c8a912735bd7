"""What a client sends and reads, apart from how it is carried.

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
"""Of a body beside its items and options."""
RETRIED_STATUSES = frozenset({429, 502, 503})
"""Statuses of requests of which nothing was begun, or that do no harm twice."""
MAX_RETRY_DELAY_S = 30.0


def embed_bodies(
    items: Sequence[Item], options: dict[str, Any], limits: Limits | None = None
) -> Iterator[dict[str, Any]]:
    """Requests for texts, and image files as bytes: as many as the limits ask for, one if they are None."""
    for part in _parts(items, options, limits):
        yield {"input": inputs(part), "encoding_format": "base64", **options}


def inputs(items: Sequence[Item]) -> list[dict[str, str]]:
    """Texts and image files as the API takes them."""
    return [{"text": item} if isinstance(item, str) else {"image": _data_uri(item)} for item in items]


def classify_bodies(
    images: Sequence[bytes], options: dict[str, Any], limits: Limits | None = None
) -> Iterator[dict[str, Any]]:
    """Requests for image files, as `embed_bodies`."""
    for part in _parts(images, options, limits):
        yield {"images": [_data_uri(image) for image in part], **options}


def vectors(answers: Iterable[EmbeddingResponse]) -> Vectors:
    """Of all requests in order, ``[n, D]``.

    Raises:
        ServingError: an item has no embedding, or the model changed in between.
    """
    rows: list[Vectors] = []
    spaces: set[tuple[str, int]] = set()
    for answer in answers:
        spaces.add((answer.model, answer.version))
        for one in answer.data:
            if not isinstance(one.embedding, str):
                raise _item_failure(len(rows), one.error)
            rows.append(np.frombuffer(base64.b64decode(one.embedding), dtype="<f4"))
    if len(spaces) > 1:
        raise ServingError(f"the model changed between requests ({sorted(spaces)}): embed all items again")
    return np.stack(rows).astype(np.float32, copy=False) if rows else np.zeros((0, 0), dtype=np.float32)


def probabilities(answers: Iterable[ClassifyResponse], classes: int) -> Vectors:
    """Of all requests in order, ``[n, C]``.

    Raises:
        ServingError: an image has none.
    """
    rows: list[list[float]] = []
    for answer in answers:
        for one in answer.data:
            if one.probabilities is None:
                raise _item_failure(len(rows), one.error)
            rows.append(one.probabilities)
    return np.array(rows, dtype=np.float32).reshape(len(rows), classes)


def parse_response(response: httpx.Response, kind: type[ResponseT]) -> ResponseT:
    """The body of an answer.

    Raises:
        OverloadedError: the service had no room for the request, at the last attempt too.
        ServingError: the answer is an error, or of something else than this service.
    """
    if response.is_error:
        message = f"{response.url} answered {response.status_code}: {_message(response)}"
        raise (OverloadedError if response.status_code in RETRIED_STATUSES else ServingError)(message)
    try:
        return kind.model_validate_json(response.content)
    except ValidationError as error:
        raise ServingError(f"{response.url} is not a raylens service of this version: {error}") from None


def retry_delay(attempt: int, response: httpx.Response | None) -> float | None:
    """Seconds until a request is worth sending again, with some chance in them; None if it is not.

    Args:
        attempt: 0 for the first.
        response: None if none came.
    """
    if response is not None and response.status_code not in RETRIED_STATUSES:
        return None
    asked = response.headers.get("retry-after", "") if response is not None else ""
    least = float(asked) if asked.isdecimal() else 0.0
    # So that those that were refused together do not come back together.
    return min(MAX_RETRY_DELAY_S, max(least, 0.25 * 2.0**attempt) * random.uniform(1.0, 1.5))  # noqa: S311 (no secret)


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
    """Bytes in a body."""
    return len(json.dumps(part, ensure_ascii=False).encode("utf-8", "surrogatepass"))


def _data_uri(image: bytes) -> str:
    # The server looks at the bytes, not at the name of the type.
    return f"data:image/octet-stream;base64,{base64.b64encode(image).decode('ascii')}"


def _message(response: httpx.Response) -> str:
    """The error form's message; the text itself where Ray Serve answers instead of the API."""
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return response.text[:500]


def _item_failure(index: int, error: ItemError | None) -> ServingError:
    return ServingError(f"item {index}: " + (f"{error.code}: {error.message}" if error else "no result and no error"))
