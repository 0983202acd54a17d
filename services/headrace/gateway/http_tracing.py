"""A span for each HTTP request, as a child of its caller's where that says so (W3C Trace Context)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

SERVER_ERROR = 500

_propagator = TraceContextTextMapPropagator()
_tracer = trace.get_tracer(__name__)


@web.middleware
async def traced(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Middleware; names and attributes are those of OpenTelemetry's HTTP conventions."""
    resource = request.match_info.route.resource
    # Only paths that there are: a caller may ask for any other.
    route = resource.canonical if resource is not None else ""
    attributes = {"http.request.method": request.method, "http.route": route, "url.scheme": request.scheme}
    with _tracer.start_as_current_span(
        f"{request.method} {route}".rstrip(),
        context=_propagator.extract(request.headers),
        kind=SpanKind.SERVER,
        attributes=attributes,
    ) as span:
        response = await handler(request)
        span.set_attribute("http.response.status_code", response.status)
        if response.status >= SERVER_ERROR:
            span.set_status(StatusCode.ERROR)
        return response
