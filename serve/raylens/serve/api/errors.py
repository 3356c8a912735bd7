"""Errors of a whole request, in OpenAI's schema: ``{"error": {"message", "type", "param", "code"}}``."""

import logging
import math
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError
from ray.exceptions import RayError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from raylens.errors import OverloadedError, RaylensError, ServingError, UnavailableError
from raylens.serve.api.requests import InputItem

__all__ = ["RefusedError", "add_handlers", "error_response", "to_refused_error"]

logger = logging.getLogger("ray.serve")

ROUTES = (
    "POST /v1/embeddings, POST /v1/similarity, POST /v1/classify, GET /v1/models, GET /healthz, GET /readyz, "
    "GET /metrics, GET /docs"
)
SHOWN_CHARS = 60
"""Number of characters of a refused value that its message repeats."""


class RefusedError(ServingError):
    """A request is refused with an error status. It is raised and handled in one process, so it need not pickle."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        code: str,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.retry_after_s = retry_after_s


def to_refused_error(error: ValidationError, body: type[BaseModel]) -> RefusedError:
    """Convert a failed validation of a body to an error that explains the first mistake."""
    first = error.errors(include_url=False)[0]
    path = ".".join(str(part) for part in first["loc"])
    kind, message = first["type"], first["msg"].removeprefix("Value error, ")
    if kind == "json_invalid":
        return RefusedError(f"the body is not valid JSON: {message}", code="invalid_json")
    if kind == "extra_forbidden":
        allowed = ", ".join(body.model_fields if len(first["loc"]) == 1 else InputItem.model_fields)
        return RefusedError(f"unknown key {path!r}; allowed here: {allowed}", code="unknown_key", param=path)
    if kind == "missing":
        return RefusedError(f"{path!r} is missing", code="missing_key", param=path)
    value = repr(first["input"])
    shown = value if len(value) <= SHOWN_CHARS else value[:SHOWN_CHARS] + "..."
    return RefusedError(f"{path or 'body'} = {shown}: {message}", code="invalid_value", param=path or None)


def add_handlers(app: FastAPI) -> None:
    """Have the application answer every exception in OpenAI's error schema."""

    @app.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> JSONResponse:
        return error_response(error.status, str(error), error.code, error.param, retry_after_s=error.retry_after_s)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        message = f"{request.method} {request.url.path}: {error.detail}; there are {ROUTES}"
        return error_response(error.status_code, message, HTTPStatus(error.status_code).name.lower())

    @app.exception_handler(OverloadedError)
    async def overloaded(_: Request, error: OverloadedError) -> JSONResponse:
        return error_response(503, str(error), "overloaded", retry_after_s=1)

    @app.exception_handler(UnavailableError)
    async def unavailable(_: Request, error: UnavailableError) -> JSONResponse:
        return error_response(503, str(error), "unavailable", retry_after_s=5)

    @app.exception_handler(TimeoutError)
    async def timed_out(_request: Request, _error: TimeoutError) -> JSONResponse:
        return error_response(504, "the request took longer than the server allows: send fewer items", "timeout")

    @app.exception_handler(ClientDisconnect)
    async def disconnected(_request: Request, _error: ClientDisconnect) -> JSONResponse:
        return error_response(400, "the connection ended before the body did", "incomplete_body")

    # Named beside Exception, because Starlette raises an exception again that only the handler for Exception takes.
    @app.exception_handler(RayError)
    @app.exception_handler(RaylensError)
    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        identifier = getattr(request.state, "request_id", "unknown")
        logger.error("request %s failed", identifier, exc_info=error)
        return error_response(
            500, f"internal error; the server's log says why, under request {identifier}", "internal_error"
        )


def error_response(
    status: int, message: str, code: str, param: str | None = None, *, retry_after_s: float | None = None
) -> JSONResponse:
    """Return an error response in OpenAI's schema; ``Retry-After`` is in whole seconds."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    headers = {} if retry_after_s is None else {"retry-after": str(max(1, math.ceil(retry_after_s)))}
    if status == HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(
        {"error": {"message": message, "type": kind, "param": param, "code": code}}, status_code=status, headers=headers
    )
