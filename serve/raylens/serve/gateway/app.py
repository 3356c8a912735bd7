"""The HTTP application: routes, limits and readiness, over the models of a catalogue."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.middleware.cors import CORSMiddleware

from raylens.errors import ConfigError
from raylens.inputs import CAPTION_TEMPLATES, check_class_names, fill_templates
from raylens.serve.api.convert import (
    classify_response,
    embedding_response,
    is_url,
    model_info,
    similarity_response,
    to_image_file,
    to_item,
)
from raylens.serve.api.errors import RefusedError, add_handlers
from raylens.serve.api.openapi import describe, describe_app
from raylens.serve.api.request_body import read_body, read_embedding_request
from raylens.serve.api.requests import ClassifyRequest, EmbeddingRequest, InputItem, SimilarityRequest
from raylens.serve.api.responses import ListResponse, ModelList, to_json
from raylens.serve.config import SecurityConfig, ServeSettings
from raylens.serve.gateway.auth import AuthMiddleware
from raylens.serve.gateway.catalogue import Catalogue, ModelChoice
from raylens.serve.gateway.fetch import ByteBudget, Fetcher
from raylens.serve.gateway.keys import KeyRing
from raylens.serve.gateway.telemetry import Telemetry
from raylens.serve.messages import Embeddings, Failed, ImageFile, Item

__all__ = ["Readiness", "build_app"]

JSON = "application/json"
INLINE_NUMBERS = 16_384
"""Largest answer, in numbers, that is encoded in the event loop, which takes a few milliseconds."""
READINESS_TTL_S = 1.0
"""How long a result of the probes, good or bad, is reused."""


def build_app(
    catalogue: Catalogue,
    settings: ServeSettings,
    security: SecurityConfig | None = None,
    fetcher: Fetcher | None = None,
    *,
    adds_request_id: bool = True,
) -> FastAPI:
    """Return the API as an ASGI application.

    Args:
        catalogue: the models that are served.
        settings: limits of requests.
        security: keys, rates and origins; no protection if None.
        fetcher: fetches images by URL; made from ``security`` if None.
        adds_request_id: add the request's id to answers; Ray Serve does so itself.

    Raises:
        ConfigError: the file of keys cannot be read.
    """
    security = security or SecurityConfig()
    api = _Api(catalogue, settings, fetcher or Fetcher(security.urls))
    app = FastAPI(title="raylens", redoc_url=None)
    add_handlers(app)
    app.post("/v1/embeddings", **describe("embeddings"))(api.embeddings)
    app.post("/v1/similarity", **describe("similarity"))(api.similarity)
    app.post("/v1/classify", **describe("classify"))(api.classify)
    app.get("/v1/models", **describe("models"))(api.models)
    app.get("/healthz", **describe("healthz"))(api.healthz)
    app.get("/readyz", **describe("readyz"))(api.readyz)
    app.get("/metrics", **describe("metrics"))(api.metrics)
    if security.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=security.origins,
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type", "x-request-id"],
            expose_headers=["x-request-id", "retry-after"],
        )
    keys = KeyRing(security.keys) if security.keys else None
    describe_app(app, keyed=keys is not None)
    app.add_middleware(
        AuthMiddleware, security=security, keys=keys, telemetry=api.telemetry, adds_request_id=adds_request_id
    )
    return app


class Readiness:
    """Whether the models embed, probed once for all callers: `/readyz` needs no key, so it must not create load.

    Args:
        probes: one per model; each raises if the model does not embed.
        timeout_s: longest time of all probes together.
    """

    def __init__(self, probes: Sequence[Callable[[], Awaitable[object]]], timeout_s: float) -> None:
        self._probes, self._timeout_s = probes, timeout_s
        self._probing: asyncio.Task[None] | None = None
        self._failure: Exception | None = None
        self._until = -1.0

    async def check(self) -> None:
        """Raise what a probe raises now or raised less than a second ago, or `TimeoutError` if one does not end."""
        if self._probing is None and time.monotonic() > self._until:
            self._probing = asyncio.create_task(self._probe())
        if self._probing is not None:
            await asyncio.shield(self._probing)  # other callers wait for it too
        if self._failure is not None:
            raise self._failure.with_traceback(None)

    async def _probe(self) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                await asyncio.gather(*(probe() for probe in self._probes))
            self._failure = None
        except Exception as error:  # noqa: BLE001 (raised by `check`, to each caller)
            self._failure = error
        finally:
            self._until = time.monotonic() + READINESS_TTL_S
            self._probing = None


class _Api:
    """The handlers of the routes."""

    def __init__(self, catalogue: Catalogue, settings: ServeSettings, fetcher: Fetcher) -> None:
        self._catalogue = catalogue
        self._settings = settings
        self._fetcher = fetcher
        self._readiness = Readiness([served.model.probe for served in catalogue.served], settings.request_timeout_s)
        self.telemetry = Telemetry()
        for served in catalogue.served:
            served.model.on_report = partial(self.telemetry.add_report, served.name)

    async def embeddings(self, request: Request) -> Response:
        body = await read_embedding_request(request, self._settings)
        chosen = self._catalogue.choose(body.model)
        answer = await self._embed(request, chosen, {"input": body.input}, bulk=body.priority == "bulk")
        _check_dimensions(body, answer)
        numbers = len(answer.results) * answer.model.embed_dim
        return await _json(partial(embedding_response, answer, body), numbers)

    async def similarity(self, request: Request) -> Response:
        body = await read_body(request, SimilarityRequest, self._settings)
        chosen = self._catalogue.choose(body.model)
        parts = {"queries": body.queries, "documents": body.documents}
        answer = await self._embed(request, chosen, parts, bulk=body.priority == "bulk")
        numbers = len(body.queries) * len(body.documents)
        return await _json(partial(similarity_response, answer, body), numbers)

    async def classify(self, request: Request) -> Response:
        body = await read_body(request, ClassifyRequest, self._settings)
        chosen = self._catalogue.choose(body.model)
        self._check_count("images", len(body.images))
        prompts = _prompts(body)
        self._check_count("classes times templates", len(prompts) * len(prompts[0]))
        request.state.quota.consume(len(body.images))
        budget = self._fetcher.budget()
        async with asyncio.timeout(self._settings.request_timeout_s):
            images = await asyncio.gather(*(self._image_file(image, budget) for image in body.images))
            model = chosen.served.model
            identity, results = await model.classify(images, prompts, bulk=body.priority == "bulk")
        chosen.check_version(identity)
        self._count(chosen, images, results)
        numbers = len(results) * len(body.classes)
        return await _json(partial(classify_response, identity, results, body.classes), numbers)

    async def models(self) -> Response:
        async with asyncio.timeout(self._settings.request_timeout_s):
            described = await asyncio.gather(*(served.model.describe() for served in self._catalogue.served))
        models = ModelList(data=[model_info(descriptions, self._settings) for descriptions in described])
        return Response(models.model_dump_json(exclude_none=True), media_type=JSON)

    async def healthz(self) -> dict[str, str]:
        return {"status": "alive"}

    async def readyz(self) -> dict[str, str]:
        await self._readiness.check()
        return {"status": "ready"}

    async def metrics(self) -> Response:
        return Response(self.telemetry.text(), media_type=self.telemetry.content_type)

    async def _embed(
        self, request: Request, chosen: ModelChoice, parts: dict[str, list[InputItem]], *, bulk: bool
    ) -> Embeddings:
        inputs = [item for part in parts.values() for item in part]
        for name, part in parts.items():
            self._check_count(name, len(part))
        self._check_count(" and ".join(parts), len(inputs))
        request.state.quota.consume(len(inputs))
        budget = self._fetcher.budget()
        async with asyncio.timeout(self._settings.request_timeout_s):
            items = await asyncio.gather(*(self._item(item, budget) for item in inputs))
            answer = await chosen.served.model.embed(items, bulk=bulk)
        chosen.check_version(answer.model)
        self._count(chosen, items, answer.results)
        return answer

    async def _item(self, item: InputItem, budget: ByteBudget) -> Item:
        if item.image is not None:
            return await self._image_file(item.image, budget)
        return to_item(item, self._settings.max_text_chars)

    async def _image_file(self, uri: str, budget: ByteBudget) -> ImageFile | Failed:
        if self._fetcher.enabled and is_url(uri):
            return await self._fetcher.fetch(uri, budget)
        return to_image_file(uri)

    def _check_count(self, what: str, count: int) -> None:
        if count > self._settings.max_items:
            raise RefusedError(
                f"{what}: {count} is over the limit of {self._settings.max_items} items per request",
                code="too_many_items",
                param=what.split()[0],
            )

    def _count(self, chosen: ModelChoice, items: Sequence[Item], results: Sequence[Any]) -> None:
        counts: Counter[tuple[str, str]] = Counter()
        for item, result in zip(items, results, strict=True):
            kind = "image" if isinstance(item, ImageFile) else "none" if isinstance(item, Failed) else "text"
            counts[kind, result.code if isinstance(result, Failed) else "ok"] += 1
        for (kind, outcome), count in counts.items():
            self.telemetry.items.labels(chosen.served.name, kind, outcome).inc(count)


def _check_dimensions(body: EmbeddingRequest, answer: Embeddings) -> None:
    if body.dimensions is not None and body.dimensions > answer.model.embed_dim:
        raise RefusedError(
            f"dimensions = {body.dimensions}: the model's embeddings have {answer.model.embed_dim}",
            code="invalid_value",
            param="dimensions",
        )


def _prompts(body: ClassifyRequest) -> list[list[str]]:
    try:
        check_class_names(body.classes)
        return fill_templates(body.classes, body.templates or CAPTION_TEMPLATES)
    except ConfigError as error:
        raise RefusedError(str(error), code="invalid_value", param=str(error).split()[0].strip(":")) from None


async def _json(make: Callable[[], ListResponse], numbers: int) -> Response:
    """Encode a response, in a thread if it has many numbers, because a gateway has one event loop for all callers."""

    def encoded() -> bytes:
        return to_json(make())

    return Response(await asyncio.to_thread(encoded) if numbers > INLINE_NUMBERS else encoded(), media_type=JSON)
