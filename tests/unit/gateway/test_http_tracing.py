"""Spans of HTTP requests."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from headrace.gateway import http_tracing

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(http_tracing, "_tracer", provider.get_tracer("test"))
    return exporter


async def answer(request: web.Request) -> web.Response:
    return web.Response(status=int(request.query.get("status", "200")))


async def test_a_request_is_a_span_of_its_callers_trace(spans: InMemorySpanExporter) -> None:
    app = web.Application(middlewares=[http_tracing.traced])
    app.add_routes([web.post("/v1/predict", answer)])
    async with TestClient(TestServer(app)) as client:
        await client.post("/v1/predict", headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
        await client.post("/v1/predict?status=503")
        await client.get("/v1/what/ever")
    called, failed, unknown = spans.get_finished_spans()
    assert called.name == "POST /v1/predict"
    assert called.kind is SpanKind.SERVER
    assert called.parent is not None
    assert f"{called.parent.span_id:016x}" == PARENT
    assert f"{called.context.trace_id:032x}" == TRACE
    assert called.attributes is not None
    assert called.attributes["http.response.status_code"] == 200
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.parent is None
    # What a caller made up is no name.
    assert unknown.name == "GET"
