"""What a request is called in logs and traces, from the gateway to the replicas.

Spans are OpenTelemetry's, in the context that a caller sends (W3C Trace Context, ``traceparent``). Without a tracer
provider in the process they cost nothing and go nowhere; Ray Serve makes one where its own tracing is switched on.
"""

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

__all__ = ["RequestContext", "request_context", "request_id", "request_span"]

W3C = TraceContextTextMapPropagator()
_REQUEST: ContextVar[str] = ContextVar("raylens_request", default="-")


@dataclass(frozen=True)
class RequestContext:
    """Travels with a request."""

    request: str = "-"
    trace: Mapping[str, str] = field(default_factory=dict)
    """The headers ``traceparent`` and ``tracestate``, as far as they are there."""


def request_id() -> str:
    """Of the request that this task works for."""
    return _REQUEST.get()


def request_context() -> RequestContext:
    """Of the request that this task works for, for those that work for it elsewhere."""
    carrier: dict[str, str] = {}
    W3C.inject(carrier)
    return RequestContext(_REQUEST.get(), carrier)


@contextlib.contextmanager
def request_span(given: RequestContext, name: str, attributes: Mapping[str, str | int]) -> Iterator[Span]:
    """A span of what is done inside for a request, whose id is in the log meanwhile."""
    token = _REQUEST.set(given.request)
    # A span that is there already is nearer than the sender's: our own, or Ray Serve's where it traces.
    inside = trace.get_current_span().get_span_context().is_valid
    try:
        with trace.get_tracer("raylens.serve").start_as_current_span(
            name,
            context=None if inside else W3C.extract(given.trace),
            kind=SpanKind.SERVER,
            attributes={"raylens.request_id": given.request, **attributes},
        ) as span:
            yield span
    finally:
        _REQUEST.reset(token)
