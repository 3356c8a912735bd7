"""The middleware that gives each request an id, checks its key and rate, and counts and logs its answer."""

import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from raylens.serve.api.errors import RefusedError, error_response
from raylens.serve.config import SecurityConfig
from raylens.serve.gateway.keys import Caller, KeyRing
from raylens.serve.gateway.rate_limit import TokenBuckets
from raylens.serve.gateway.telemetry import Telemetry
from raylens.serve.tracing import RequestContext, request_span

__all__ = ["OPEN", "AuthMiddleware", "Quota"]

logger = logging.getLogger("ray.serve")

OPEN = frozenset({"/healthz", "/readyz", "/docs", "/openapi.json"})
"""Paths that need no key, because the probes of a load balancer have none."""
ROUTES = frozenset({*OPEN, "/v1/embeddings", "/v1/similarity", "/v1/classify", "/v1/models", "/metrics"})
REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
ANONYMOUS = Caller("anybody")


class Quota:
    """The rate limit of a request's caller."""

    def __init__(self, caller: Caller, buckets: TokenBuckets, per_second: float | None) -> None:
        self.caller = caller
        self._buckets = buckets
        self._per_second = per_second

    def consume(self, items: int) -> None:
        """Take the items of a request from the caller's rate.

        Raises:
            RefusedError: the caller exceeded its rate (status 429).
        """
        seconds = self._buckets.take(self.caller.name, items, self._per_second)
        if seconds > 0:
            raise RefusedError(
                f"the rate limit of {self._per_second:g} items per second is exceeded: try again in {seconds:.1f} s",
                status=429,
                code="rate_limit_exceeded",
                retry_after_s=seconds,
            )


class AuthMiddleware:
    """ASGI middleware that authenticates requests, and opens their spans.

    Args:
        app: the application behind it.
        security: the rate limit.
        keys: API keys; everybody may call if None.
        telemetry: counts requests.
        adds_request_id: add the request's id to answers.
    """

    def __init__(
        self,
        app: ASGIApp,
        security: SecurityConfig,
        keys: KeyRing | None,
        telemetry: Telemetry,
        *,
        adds_request_id: bool = True,
    ) -> None:
        self._app = app
        self._adds_request_id = adds_request_id
        self._limit = security.items_per_second
        self._keys = keys
        self._buckets = TokenBuckets()
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a connection; see the ASGI specification."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent_id = Headers(scope=scope).get("x-request-id", "")
        identifier = sent_id if REQUEST_ID.fullmatch(sent_id) else uuid.uuid4().hex
        state = scope.setdefault("state", {})
        state["request_id"] = identifier
        began, status = time.perf_counter(), 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._adds_request_id:
                    MutableHeaders(scope=message)["x-request-id"] = identifier
            await send(message)

        caller: Caller | None = None
        method, route = scope["method"], _route(scope)
        traced = {"http.request.method": method, "http.route": route}
        with request_span(RequestContext(identifier, _trace(scope)), f"{method} {route}", traced) as span:
            try:
                caller = await self._caller(scope)
                if caller is None:
                    await _unauthorized()(scope, receive, send_with_id)
                    return
                state["quota"] = Quota(caller, self._buckets, caller.items_per_second or self._limit)
                await self._app(scope, receive, send_with_id)
            finally:
                span.set_attribute("http.response.status_code", status)
                self._record(scope, status, time.perf_counter() - began, caller)

    async def _caller(self, scope: Scope) -> Caller | None:
        # A browser's preflight request (CORS) has no key; the application behind answers it.
        if self._keys is None or scope["path"] in OPEN or scope["method"] == "OPTIONS":
            return ANONYMOUS
        return await self._keys.caller(Headers(scope=scope).get("authorization", ""))

    def _record(self, scope: Scope, status: int, seconds: float, caller: Caller | None) -> None:
        route = _route(scope)
        name = caller.name if caller else "unknown"
        self._telemetry.requests.labels(route, str(status), name).inc()
        self._telemetry.seconds.labels(route).observe(seconds)
        if route not in OPEN:
            logger.info(
                "request %s %s %s %d %.1f ms", scope["state"]["request_id"], name, route, status, 1000 * seconds
            )


def _route(scope: Scope) -> str:
    path: str = scope["path"]
    return path if path in ROUTES else "other"  # a label for each path that callers make up would have no bound


def _trace(scope: Scope) -> dict[str, str]:
    headers = Headers(scope=scope)
    return {name: headers[name] for name in ("traceparent", "tracestate") if name in headers}


def _unauthorized() -> ASGIApp:
    message = "no valid API key: send one as 'Authorization: Bearer rl-...'"
    return error_response(401, message, "invalid_api_key")
