"""An OpenTelemetry collector that keeps nothing: takes spans and metrics over OTLP, and counts the spans.

`python -m loadtests.controls.otlp_sink PORT`: until SIGTERM, then it prints how many spans came.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

import grpc.aio
import uvloop
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import (
    MetricsServiceServicer,
    add_MetricsServiceServicer_to_server,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)


class Spans(TraceServiceServicer):
    """Counts spans.

    Attributes:
        count: so far.
    """

    def __init__(self) -> None:
        self.count = 0

    async def Export(self, request: Any, context: Any) -> ExportTraceServiceResponse:  # noqa: N802
        self.count += sum(len(scope.spans) for one in request.resource_spans for scope in one.scope_spans)
        return ExportTraceServiceResponse()


class Metrics(MetricsServiceServicer):
    """Takes metrics."""

    async def Export(self, request: Any, context: Any) -> ExportMetricsServiceResponse:  # noqa: N802
        return ExportMetricsServiceResponse()


async def main(port: int) -> None:
    """Serve until SIGTERM."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    server, spans = grpc.aio.server(), Spans()
    add_TraceServiceServicer_to_server(spans, server)  # type: ignore[no-untyped-call]
    add_MetricsServiceServicer_to_server(Metrics(), server)  # type: ignore[no-untyped-call]
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await stopped.wait()
    await server.stop(1.0)
    print(f"spans: {spans.count}", flush=True)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
