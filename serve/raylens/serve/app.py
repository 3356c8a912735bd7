"""The HTTP side: validation, limits and the error form, over whatever `Backend` embeds."""

import asyncio
from typing import TypeVar

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ValidationError

from raylens.errors import ConfigError, OverloadedError, UnavailableError
from raylens.inputs import CAPTION_TEMPLATES, check_class_names, fill_templates
from raylens.serve.convert import classify_response, embedding_response, model_info, to_item, to_picture
from raylens.serve.messages import Backend, Refusal
from raylens.serve.refusals import RefusedError, add_handlers, complaint
from raylens.serve.schema import ClassifyRequest, EmbeddingRequest, ModelList
from raylens.serve.settings import ServeSettings

__all__ = ["build_app"]

BodyT = TypeVar("BodyT", bound=BaseModel)
AnswerT = TypeVar("AnswerT")


def build_app(backend: Backend, settings: ServeSettings) -> FastAPI:
    """The API as an ASGI application."""
    app = FastAPI(title="raylens", docs_url=None, redoc_url=None, openapi_url=None)
    add_handlers(app)

    @app.post("/v1/embeddings")
    async def embeddings(request: Request) -> Response:
        body = await _body(request, EmbeddingRequest, settings)
        _check_count("input", len(body.input), settings)
        items = [to_item(item, settings.max_text_chars) for item in body.input]
        async with asyncio.timeout(settings.request_timeout_s):
            answer = _accepted(await backend.embed(items, body.model))
        return _json(embedding_response(answer, body.encoding_format))

    @app.post("/v1/classify")
    async def classify(request: Request) -> Response:
        body = await _body(request, ClassifyRequest, settings)
        _check_count("images", len(body.images), settings)
        prompts = _prompts(body)
        _check_count("classes times templates", len(prompts) * len(prompts[0]), settings)
        images = [to_picture(uri) for uri in body.images]
        async with asyncio.timeout(settings.request_timeout_s):
            answer = _accepted(await backend.classify(images, prompts, body.model))
        return _json(classify_response(answer, body.classes))

    @app.get("/v1/models")
    async def models() -> Response:
        async with asyncio.timeout(settings.request_timeout_s):
            return _json(ModelList(data=[model_info(await backend.describe())]))

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz")
    async def readyz() -> dict[str, str]:
        async with asyncio.timeout(settings.request_timeout_s):
            _accepted(await backend.probe())
        return {"status": "ready"}

    return app


async def _body(request: Request, kind: type[BodyT], settings: ServeSettings) -> BodyT:
    """The parsed body. Read by hand: FastAPI would read all of it before any limit, and parse it in Python."""
    try:
        return kind.model_validate_json(await _read(request, settings.max_body_bytes))
    except ValidationError as error:
        raise complaint(error, kind) from None


async def _read(request: Request, limit: int) -> bytes:
    too_large = RefusedError(
        f"the body is larger than {limit} bytes: send fewer items a request, or smaller images",
        status=413,
        code="body_too_large",
    )
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise too_large
    return bytes(body)


def _check_count(what: str, count: int, settings: ServeSettings) -> None:
    if count > settings.max_items:
        raise RefusedError(
            f"{what}: {count} is over the limit of {settings.max_items} a request",
            code="too_many_items",
            param=what.split()[0],
        )


def _prompts(body: ClassifyRequest) -> list[list[str]]:
    try:
        check_class_names(body.classes)
        return fill_templates(body.classes, body.templates or CAPTION_TEMPLATES)
    except ConfigError as error:
        raise RefusedError(str(error), code="invalid_value", param=str(error).split()[0].strip(":")) from None


def _accepted(answer: AnswerT | Refusal) -> AnswerT:
    if isinstance(answer, Refusal):
        if answer.code == "overloaded":
            raise OverloadedError(answer.message)
        if answer.code == "not_ready":
            raise UnavailableError(answer.message)
        raise RefusedError(answer.message, status=404, code=answer.code, param="model")
    return answer


def _json(body: BaseModel) -> Response:
    return Response(body.model_dump_json(exclude_none=True), media_type="application/json")
