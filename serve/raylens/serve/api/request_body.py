"""Reading the body of a request, up to its limits: JSON, an image file, or a form of files and texts."""

import asyncio
import base64
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from python_multipart import create_form_parser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File

from raylens.serve.api.errors import RefusedError, to_refused_error
from raylens.serve.api.requests import EmbeddingRequest
from raylens.serve.config import ServeSettings

__all__ = ["read_body", "read_embedding_request"]

BodyT = TypeVar("BodyT", bound=BaseModel)
ITEMS = ("input", "image", "text")
NUMBERS = ("dimensions",)
MAX_OPTIONS = 20
"""Most parts of a form beside its items."""


async def read_body(request: Request, kind: type[BodyT], settings: ServeSettings) -> BodyT:
    """Read and parse a JSON body. FastAPI would read it whole before any limit applies, and parse it in Python.

    Raises:
        RefusedError: the body is too large or too slow, is no JSON, or does not fit the route.
    """
    try:
        return kind.model_validate_json(await _read(request, settings))
    except ValidationError as error:
        raise to_refused_error(error, kind) from None


async def read_embedding_request(request: Request, settings: ServeSettings) -> EmbeddingRequest:
    """Read JSON as `read_body` does, an ``image/*`` body with options in the query, or ``multipart/form-data``.

    Raises:
        RefusedError: see `read_body`.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind.startswith("image/"):
        file = await _read(request, settings)
        fields: dict[str, Any] = {"input": [{"image": _data_uri(file)}], **_options(request.query_params.multi_items())}
    elif kind == "multipart/form-data":
        fields = await _form(request, settings)
    else:
        return await read_body(request, EmbeddingRequest, settings)
    try:
        return EmbeddingRequest.model_validate(fields)
    except ValidationError as error:
        raise to_refused_error(error, EmbeddingRequest) from None


async def _form(request: Request, settings: ServeSettings) -> dict[str, Any]:
    """Parse a form in memory, which already holds the body, whose size is bounded."""
    body = await _read(request, settings)
    parts: list[Field | File] = []

    def take(part: Field | File) -> None:
        if len(parts) == settings.max_items + MAX_OPTIONS:
            raise RefusedError(
                f"the form has more than {settings.max_items} parts", code="too_many_items", param="input"
            )
        parts.append(part)

    headers = {"Content-Type": request.headers["content-type"].encode("latin-1")}
    try:
        parser = create_form_parser(headers, take, take, config={"MAX_MEMORY_FILE_SIZE": settings.max_body_bytes + 1})
        parser.write(body)
        parser.finalize()
        return _fields(parts)
    except (FormParserError, UnicodeError) as error:
        raise RefusedError(f"the form cannot be read: {error}", code="invalid_form") from None


def _fields(parts: list[Field | File]) -> dict[str, Any]:
    items: list[dict[str, str]] = []
    options: list[tuple[str, str]] = []
    for part in parts:
        name = (part.field_name or b"").decode()
        if isinstance(part, File):
            part.file_object.seek(0)
            items.append({"image": _data_uri(part.file_object.read())})
        elif name in ITEMS:
            items.append({"text": (part.value or b"").decode()})
        else:
            options.append((name, (part.value or b"").decode()))
    return {"input": items, **_options(options)}


def _options(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name, value in pairs:
        if name == "embedding_types":
            options.setdefault(name, []).extend(value.split(","))
        else:
            options[name] = int(value) if name in NUMBERS and value.isdecimal() and len(value) < 10 else value
    return options


def _data_uri(file: bytes) -> str:
    return f"data:image/any;base64,{base64.b64encode(file).decode('ascii')}"


async def _read(request: Request, settings: ServeSettings) -> bytes:
    limit = settings.max_body_bytes
    too_large = RefusedError(
        f"the body is larger than {limit} bytes: send fewer items a request, or smaller images",
        status=413,
        code="body_too_large",
    )
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > limit:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(settings.body_timeout_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise too_large
    except TimeoutError:
        raise RefusedError(
            f"the body did not arrive within {settings.body_timeout_s:g} s", status=408, code="body_too_slow"
        ) from None
    return bytes(body)
