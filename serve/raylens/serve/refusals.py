"""Errors of a whole request, in OpenAI's form: ``{"error": {"message", "type", "param", "code"}}``."""

import logging
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError
from ray.exceptions import RayError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from raylens.errors import OverloadedError, RaylensError, ServingError, UnavailableError

__all__ = ["RefusedError", "add_handlers", "complaint"]

logger = logging.getLogger("ray.serve")

ROUTES = "POST /v1/embeddings, POST /v1/classify, GET /v1/models, GET /healthz, GET /readyz"
SHOWN = 60
"""Characters of a refused value that its message repeats."""


class RefusedError(ServingError):
    """A request that is answered with an error status. Made and handled in one process."""

    def __init__(self, message: str, *, status: int = 400, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param


def complaint(error: ValidationError, body: type[BaseModel]) -> RefusedError:
    """The first thing that is wrong with a body, in a sentence."""
    first = error.errors(include_url=False)[0]
    path = ".".join(str(part) for part in first["loc"])
    kind, message = first["type"], first["msg"].removeprefix("Value error, ")
    if kind == "json_invalid":
        return RefusedError(f"the body is not valid JSON: {message}", code="invalid_json")
    if kind == "extra_forbidden":
        allowed = ", ".join(body.model_fields if len(first["loc"]) == 1 else ("text", "image"))
        return RefusedError(f"unknown key {path!r}; allowed here: {allowed}", code="unknown_key", param=path)
    if kind == "missing":
        return RefusedError(f"{path!r} is missing", code="missing_key", param=path)
    value = repr(first["input"])
    shown = value if len(value) <= SHOWN else value[:SHOWN] + "..."
    return RefusedError(f"{path or 'body'} = {shown}: {message}", code="invalid_value", param=path or None)


def add_handlers(app: FastAPI) -> None:
    """Answer every exception in the error form."""

    @app.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> JSONResponse:
        return _answer(error.status, str(error), error.code, error.param)

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, error: HTTPException) -> JSONResponse:
        message = f"{request.method} {request.url.path}: {error.detail}; there are {ROUTES}"
        return _answer(error.status_code, message, HTTPStatus(error.status_code).name.lower())

    @app.exception_handler(OverloadedError)
    async def overloaded(_: Request, error: OverloadedError) -> JSONResponse:
        return _answer(503, str(error), "overloaded", retry_after_s=1)

    @app.exception_handler(UnavailableError)
    async def unavailable(_: Request, error: UnavailableError) -> JSONResponse:
        return _answer(503, str(error), "unavailable", retry_after_s=5)

    @app.exception_handler(TimeoutError)
    async def late(_request: Request, _error: TimeoutError) -> JSONResponse:
        return _answer(504, "the request took longer than the server allows: send fewer items", "timeout")

    @app.exception_handler(ClientDisconnect)
    async def gone(_request: Request, _error: ClientDisconnect) -> JSONResponse:
        return _answer(400, "the connection ended before the body did", "incomplete_body")

    # By name as well, because what is registered for Exception is raised again behind the answer.
    @app.exception_handler(RayError)
    @app.exception_handler(RaylensError)
    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> JSONResponse:
        identifier = request.headers.get("x-request-id", "unknown")
        logger.error("request %s failed", identifier, exc_info=error)
        return _answer(500, f"internal error; the server's log says why, under request {identifier}", "internal_error")


def _answer(
    status: int, message: str, code: str, param: str | None = None, *, retry_after_s: int | None = None
) -> JSONResponse:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return JSONResponse(
        {"error": {"message": message, "type": kind, "param": param, "code": code}},
        status_code=status,
        headers=None if retry_after_s is None else {"retry-after": str(retry_after_s)},
    )
