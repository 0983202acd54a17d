"""OpenTelemetry traces and metrics, exported over OTLP; and trace context carried through Kafka headers.

Without an endpoint nothing is set up: the OpenTelemetry API's no-op tracer and meter stay in place, and the two header
functions return at once.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from opentelemetry import metrics, trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, MutableSequence

    from opentelemetry.context import Context

EXPORT_TIMEOUT_S = 3.0
SHUTDOWN_TIMEOUT_S = 3.0

_propagator = TraceContextTextMapPropagator()
_enabled = False


def enabled() -> bool:
    """Whether telemetry is exported."""
    return _enabled


def configure_telemetry(service: str, endpoint: str) -> Callable[[], None]:
    """Export traces and metrics of this process.

    Args:
        service: name of the service, `service.name` of the resource (with the namespace "headrace").
        endpoint: OTLP over gRPC as `http://host:port` (`https://` for TLS); empty leaves telemetry off.

    Returns:
        What sends the rest and shuts telemetry down, within `SHUTDOWN_TIMEOUT_S`; call it once, at the end.
    """
    global _enabled  # noqa: PLW0603
    if not endpoint:
        return _nothing_to_shut_down
    # Imported here: a process without telemetry need not pay for them.
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    insecure = not endpoint.startswith("https://")
    resource = Resource.create({"service.name": service, "service.namespace": "headrace"})
    tracer_provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    tracer_provider.add_span_processor(
        BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, insecure=insecure, timeout=EXPORT_TIMEOUT_S))
    )
    reader = PeriodicExportingMetricReader(
        OTLPMetricExporter(endpoint=endpoint, insecure=insecure, timeout=EXPORT_TIMEOUT_S),
        export_timeout_millis=EXPORT_TIMEOUT_S * 1000,
    )
    meter_provider = MeterProvider(resource=resource, metric_readers=[reader], shutdown_on_exit=False)
    trace.set_tracer_provider(tracer_provider)
    metrics.set_meter_provider(meter_provider)
    _enabled = True

    def shut_down() -> None:
        global _enabled  # noqa: PLW0603
        _enabled = False
        # In threads that do not hold up the process: an exporter retries for long when its collector is away.
        threads = [
            threading.Thread(target=provider.shutdown, daemon=True, name="telemetry-shutdown")
            for provider in (tracer_provider, meter_provider)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SHUTDOWN_TIMEOUT_S / len(threads))

    return shut_down


def inject_headers(headers: MutableSequence[tuple[str, bytes]]) -> None:
    """Append the W3C trace context of the active span to Kafka headers; nothing where there is none."""
    if not _enabled:
        return
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    headers.extend((name, value.encode("ascii")) for name, value in carrier.items())


def extract_context(headers: Iterable[tuple[str, bytes]] | None) -> Context | None:
    """Context of the span that wrote a Kafka record, to start a span with; None where there is none."""
    if not _enabled or not headers:
        return None
    carrier = {
        name: value.decode("ascii", errors="replace")
        for name, value in headers
        if name in _propagator.fields and value is not None
    }
    return _propagator.extract(carrier) if carrier else None


def _nothing_to_shut_down() -> None:
    return None
