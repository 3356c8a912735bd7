"""The id and the trace of a request, which travel from the gateway to the replicas.

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
    """The id and the trace of a request, sent along with it to other processes."""

    request_id: str = "-"
    trace_headers: Mapping[str, str] = field(default_factory=dict)
    """The headers ``traceparent`` and ``tracestate``, where the caller sent them."""


def request_id() -> str:
    """Return the id of the request that this task works for, or ``-``."""
    return _REQUEST.get()


def request_context() -> RequestContext:
    """Return the context of the request that this task works for, to send it to another process."""
    carrier: dict[str, str] = {}
    W3C.inject(carrier)
    return RequestContext(_REQUEST.get(), carrier)


@contextlib.contextmanager
def request_span(context: RequestContext, name: str, attributes: Mapping[str, str | int]) -> Iterator[Span]:
    """Open a span for work on a request, and set the id that log lines and `request_id` give meanwhile."""
    token = _REQUEST.set(context.request_id)
    # A current span (our own, or Ray Serve's where it traces) is a nearer parent than the sender's.
    inside = trace.get_current_span().get_span_context().is_valid
    try:
        with trace.get_tracer("raylens.serve").start_as_current_span(
            name,
            context=None if inside else W3C.extract(context.trace_headers),
            kind=SpanKind.SERVER,
            attributes={"raylens.request_id": context.request_id, **attributes},
        ) as span:
            yield span
    finally:
        _REQUEST.reset(token)
