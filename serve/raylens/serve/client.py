"""A small client of the embedding API.

Shapes: n items, C classes, D embedding.
"""

import base64
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from raylens.errors import ServingError
from raylens.serve.schema import ClassifyResponse, EmbeddingResponse, ItemError, ModelInfo, ModelList

__all__ = ["EmbeddingClient"]

ResponseT = TypeVar("ResponseT", bound=BaseModel)
MAX_ITEMS = 2048
MAX_BYTES = 16 * 2**20
"""Of a request's items; a longer list goes out as several requests."""


class EmbeddingClient:
    """Calls a service at ``url``. Every method raises `ServingError` with the server's message, or why none came."""

    def __init__(self, url: str, *, timeout_s: float = 120.0) -> None:
        self._url = url.rstrip("/")
        self._http = httpx.Client(base_url=self._url, timeout=timeout_s)

    def embed(self, items: Sequence[str | bytes]) -> NDArray[np.float32]:
        """Texts, and image files as bytes, to unit vectors ``[n, D]``, in order."""
        rows: list[NDArray[np.float32]] = []
        spaces: set[tuple[str, int]] = set()
        for part in _parts(items):
            inputs = [{"text": item} if isinstance(item, str) else {"image": _data_uri(item)} for item in part]
            answer = self._post("/v1/embeddings", {"input": inputs, "encoding_format": "base64"}, EmbeddingResponse)
            spaces.add((answer.model, answer.version))
            for one in answer.data:
                if not isinstance(one.embedding, str):
                    raise _item_failure(len(rows), one.error)
                rows.append(np.frombuffer(base64.b64decode(one.embedding), dtype="<f4"))
        if len(spaces) > 1:
            raise ServingError(f"the model changed between requests ({sorted(spaces)}): embed all items again")
        if not rows:
            return np.zeros((0, self.models()[0].dimension), dtype=np.float32)
        return np.stack(rows).astype(np.float32, copy=False)

    def classify(
        self, images: Sequence[bytes], classes: Sequence[str], templates: Sequence[str] | None = None
    ) -> NDArray[np.float32]:
        """Image files to zero-shot probabilities ``[n, C]``."""
        rows: list[list[float]] = []
        for part in _parts(images):
            body: dict[str, Any] = {"images": [_data_uri(image) for image in part], "classes": list(classes)}
            if templates is not None:
                body["templates"] = list(templates)
            for one in self._post("/v1/classify", body, ClassifyResponse).data:
                if one.probabilities is None:
                    raise _item_failure(len(rows), one.error)
                rows.append(one.probabilities)
        return np.array(rows, dtype=np.float32).reshape(len(rows), len(classes))

    def models(self) -> list[ModelInfo]:
        """What is served."""
        return self._read(self._send("GET", "/v1/models"), ModelList).data

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _post(self, path: str, body: dict[str, Any], kind: type[ResponseT]) -> ResponseT:
        return self._read(self._send("POST", path, body), kind)

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        try:
            return self._http.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise ServingError(f"{self._url}{path}: {error or type(error).__name__}; is the service running?") from None

    def _read(self, response: httpx.Response, kind: type[ResponseT]) -> ResponseT:
        if response.is_error:
            raise ServingError(f"{response.url} answered {response.status_code}: {_message(response)}")
        try:
            return kind.model_validate_json(response.content)
        except ValidationError as error:
            raise ServingError(f"{response.url} is not a raylens service of this version: {error}") from None


def _parts(items: Sequence[Any]) -> Iterator[list[Any]]:
    part: list[Any] = []
    size = 0
    for item in items:
        if part and (len(part) == MAX_ITEMS or size + len(item) > MAX_BYTES):
            yield part
            part, size = [], 0
        part.append(item)
        size += len(item)
    if part:
        yield part


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
