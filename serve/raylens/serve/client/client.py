"""Clients of the embedding API: a synchronous one, and one for asyncio.

Shapes: n items, C classes, D embedding.
"""

import asyncio
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import httpx
import numpy as np

from raylens.errors import ServingError
from raylens.serve.api.responses import (
    ClassifyResponse,
    EmbeddingResponse,
    Limits,
    ModelInfo,
    ModelList,
    SimilarityResponse,
)
from raylens.serve.client.codec import (
    Item,
    Vectors,
    classify_bodies,
    embed_bodies,
    inputs,
    parse_response,
    probabilities,
    retry_delay,
    vectors,
)

__all__ = ["AsyncEmbeddingClient", "EmbeddingClient"]


class EmbeddingClient:
    """A client of the service at ``url``. Every method raises `ServingError` with the server's message, or the reason
    why no answer came.

    Args:
        url: URL of the service.
        key: an API key, where the service asks for one.
        model: the model to use; the first that is served, if None.
        timeout_s: longest time of one attempt.
        retries: further attempts at a request that an overloaded service refused, or that did not reach it; the delays
            between them follow the service's ``Retry-After``.
    """

    def __init__(
        self, url: str, *, key: str | None = None, model: str | None = None, timeout_s: float = 120.0, retries: int = 4
    ) -> None:
        self._url, self._model, self._retries = url.rstrip("/"), model, retries
        self._http = httpx.Client(base_url=self._url, timeout=timeout_s, headers=_headers(key))
        self._service_limits: Limits | None = None

    def embed(self, items: Sequence[Item], *, dimensions: int | None = None, bulk: bool = False) -> Vectors:
        """Embed texts, and image files as bytes, to unit vectors ``[n, D]``, in order.

        Args:
            items: any number; they are sent in requests within the service's limits.
            dimensions: keep this many leading components and normalise again.
            bulk: let interactive requests of others go first.
        """
        options = _options(self._model, dimensions=dimensions, bulk=bulk)
        bodies = embed_bodies(items, options, self._limits(len(items)))
        embeddings = vectors(self._post("/v1/embeddings", body, EmbeddingResponse) for body in bodies)
        return embeddings if len(embeddings) else _no_vectors(self.models(), self._model, dimensions)

    def classify(
        self, images: Sequence[bytes], classes: Sequence[str], templates: Sequence[str] | None = None
    ) -> Vectors:
        """Classify image files; return their zero-shot probabilities ``[n, C]``."""
        options = _options(self._model) | _classes(classes, templates)
        bodies = classify_bodies(images, options, self._limits(len(images)))
        answers = (self._post("/v1/classify", body, ClassifyResponse) for body in bodies)
        return probabilities(answers, len(classes))

    def similarity(self, queries: Sequence[Item], documents: Sequence[Item]) -> Vectors:
        """Return the cosines ``[n, m]`` of queries to documents, texts or image files; NaN where an item failed."""
        body = _pairs(queries, documents) | _options(self._model)
        return _cosines(self._post("/v1/similarity", body, SimilarityResponse), len(documents))

    def models(self) -> list[ModelInfo]:
        """Return the models that the service offers."""
        return parse_response(self._send("GET", "/v1/models"), ModelList).data

    def close(self) -> None:
        """Close the connections to the service."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _limits(self, items: int) -> Limits | None:
        """Return the limits of a request, asked for once; a single item needs none."""
        if self._service_limits is None and items > 1:
            self._service_limits = self.models()[0].limits
        return self._service_limits

    def _post(self, path: str, body: dict[str, Any], kind: type[Any]) -> Any:
        return parse_response(self._send("POST", path, body), kind)

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        for attempt in range(self._retries + 1):
            response, error = None, None
            try:
                response = self._http.request(method, path, json=body)
            except httpx.HTTPError as failed:
                error = failed
            seconds = retry_delay(attempt, response)
            if response is not None and (seconds is None or attempt == self._retries):
                return response
            if attempt == self._retries:
                raise _unreachable(self._url + path, error) from None
            time.sleep(seconds or 0.0)
        raise AssertionError("unreachable: the last attempt returns or raises")


class AsyncEmbeddingClient:
    """An `EmbeddingClient` for asyncio, which sends the requests of a long list at the same time.

    Args:
        url, key, model, timeout_s, retries: the same as for `EmbeddingClient`.
        max_concurrency: number of requests that are under way at a time.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        model: str | None = None,
        timeout_s: float = 120.0,
        retries: int = 4,
        max_concurrency: int = 8,
    ) -> None:
        self._url, self._model, self._retries = url.rstrip("/"), model, retries
        self._http = httpx.AsyncClient(base_url=self._url, timeout=timeout_s, headers=_headers(key))
        self._service_limits: Limits | None = None
        self._slots = asyncio.Semaphore(max_concurrency)

    async def embed(self, items: Sequence[Item], *, dimensions: int | None = None, bulk: bool = False) -> Vectors:
        """Embed texts and image files; see `EmbeddingClient.embed`."""
        options = _options(self._model, dimensions=dimensions, bulk=bulk)
        bodies = embed_bodies(items, options, await self._limits(len(items)))
        embeddings = vectors(
            await asyncio.gather(*(self._post("/v1/embeddings", body, EmbeddingResponse) for body in bodies))
        )
        return embeddings if len(embeddings) else _no_vectors(await self.models(), self._model, dimensions)

    async def classify(
        self, images: Sequence[bytes], classes: Sequence[str], templates: Sequence[str] | None = None
    ) -> Vectors:
        """Classify image files; see `EmbeddingClient.classify`."""
        options = _options(self._model) | _classes(classes, templates)
        bodies = classify_bodies(images, options, await self._limits(len(images)))
        answers = await asyncio.gather(*(self._post("/v1/classify", body, ClassifyResponse) for body in bodies))
        return probabilities(answers, len(classes))

    async def similarity(self, queries: Sequence[Item], documents: Sequence[Item]) -> Vectors:
        """Return cosines of queries to documents; see `EmbeddingClient.similarity`."""
        body = _pairs(queries, documents) | _options(self._model)
        return _cosines(await self._post("/v1/similarity", body, SimilarityResponse), len(documents))

    async def models(self) -> list[ModelInfo]:
        """Return the models that the service offers."""
        return parse_response(await self._send("GET", "/v1/models"), ModelList).data

    async def close(self) -> None:
        """Close the connections to the service."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _limits(self, items: int) -> Limits | None:
        if self._service_limits is None and items > 1:
            self._service_limits = (await self.models())[0].limits
        return self._service_limits

    async def _post(self, path: str, body: dict[str, Any], kind: type[Any]) -> Any:
        return parse_response(await self._send("POST", path, body), kind)

    async def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        for attempt in range(self._retries + 1):
            response, error = None, None
            try:
                async with self._slots:
                    response = await self._http.request(method, path, json=body)
            except httpx.HTTPError as failed:
                error = failed
            seconds = retry_delay(attempt, response)
            if response is not None and (seconds is None or attempt == self._retries):
                return response
            if attempt == self._retries:
                raise _unreachable(self._url + path, error) from None
            await asyncio.sleep(seconds or 0.0)
        raise AssertionError("unreachable: the last attempt returns or raises")


def _headers(key: str | None) -> dict[str, str]:
    return {} if key is None else {"authorization": f"Bearer {key}"}


def _options(model: str | None, *, dimensions: int | None = None, bulk: bool = False) -> dict[str, Any]:
    options = {"model": model, "dimensions": dimensions, "priority": "bulk" if bulk else None}
    return {name: value for name, value in options.items() if value is not None}


def _classes(classes: Sequence[str], templates: Sequence[str] | None) -> dict[str, Any]:
    return {"classes": list(classes)} | ({} if templates is None else {"templates": list(templates)})


def _pairs(queries: Sequence[Item], documents: Sequence[Item]) -> dict[str, Any]:
    return {"queries": inputs(queries), "documents": inputs(documents)}


def _cosines(answer: SimilarityResponse, documents: int) -> Vectors:
    rows = [query.scores or [None] * documents for query in answer.data]
    return np.array([[np.nan if score is None else score for score in row] for row in rows], dtype=np.float32)


def _no_vectors(models: Sequence[ModelInfo], model: str | None, dimensions: int | None) -> Vectors:
    name = model.partition("@")[0] if model else models[0].id
    width = next((info.dimension for info in models if info.id == name), models[0].dimension)
    return np.zeros((0, min(width, dimensions or width)), dtype=np.float32)


def _unreachable(where: str, error: httpx.HTTPError | None) -> ServingError:
    return ServingError(f"{where}: {error or type(error).__name__}; is the service running?")
