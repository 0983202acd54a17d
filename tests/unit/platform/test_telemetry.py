from __future__ import annotations

import json
import subprocess
import sys

from headrace.platform.telemetry import configure_telemetry, extract_context, inject_headers

COLLECTED = """
import json, time
from concurrent import futures
import grpc
from opentelemetry import trace, metrics
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as m, metrics_service_pb2_grpc as mg
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as t, trace_service_pb2_grpc as tg
from headrace.platform.telemetry import configure_telemetry, extract_context, inject_headers

spans, names = [], []
class Traces(tg.TraceServiceServicer):
    def Export(self, request, context):
        for one in request.resource_spans:
            service = {a.key: a.value.string_value for a in one.resource.attributes}["service.name"]
            spans.extend((service, s.name, s.span_id.hex(), s.parent_span_id.hex())
                         for scope in one.scope_spans for s in scope.spans)
        return t.ExportTraceServiceResponse()
class Metrics(mg.MetricsServiceServicer):
    def Export(self, request, context):
        names.extend(x.name for r in request.resource_metrics for s in r.scope_metrics for x in s.metrics)
        return m.ExportMetricsServiceResponse()

server = grpc.server(futures.ThreadPoolExecutor(2))
tg.add_TraceServiceServicer_to_server(Traces(), server)
mg.add_MetricsServiceServicer_to_server(Metrics(), server)
port = server.add_insecure_port("127.0.0.1:0")
server.start()
shut_down = configure_telemetry("mill", f"http://127.0.0.1:{port}")
headers = [("content-type", b"application/json")]
with trace.get_tracer("a").start_as_current_span("write"):
    inject_headers(headers)
with trace.get_tracer("b").start_as_current_span("read", context=extract_context(headers)):
    metrics.get_meter("m").create_counter("grains").add(1)
assert extract_context([("other", b"x"), ("none", None)]) is None
shut_down()
server.stop(0)
print(json.dumps({"spans": spans, "metrics": names, "headers": [h for h, _ in headers]}))
"""

NOBODY_LISTENS = """
import time
from opentelemetry import trace
from headrace.platform.telemetry import configure_telemetry
shut_down = configure_telemetry("mill", "http://127.0.0.1:1")
with trace.get_tracer("a").start_as_current_span("lost"):
    pass
before = time.monotonic()
shut_down()
print(time.monotonic() - before)
"""


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=45)
    return done.stdout.splitlines()[-1]


def test_off_without_an_endpoint() -> None:
    shut_down = configure_telemetry("mill", "")
    headers: list[tuple[str, bytes]] = []
    inject_headers(headers)
    assert headers == []
    assert extract_context([("traceparent", b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01")]) is None
    assert extract_context(None) is None
    shut_down()


def test_a_trace_goes_through_kafka_headers_to_the_collector() -> None:
    found = json.loads(run(COLLECTED))
    spans = {name: (service, span, parent) for service, name, span, parent in found["spans"]}
    assert spans["write"][0] == "mill"
    assert spans["read"][2] == spans["write"][1]
    assert found["headers"] == ["content-type", "traceparent"]
    assert "grains" in found["metrics"]


def test_shutting_down_does_not_wait_for_a_collector_that_is_away() -> None:
    assert float(run(NOBODY_LISTENS)) < 5
