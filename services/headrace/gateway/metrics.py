"""What the gateway counts."""

from __future__ import annotations

from collections.abc import Iterable

from headrace.platform.metrics import counter, gauge, histogram
from headrace.v1.prediction_pb2 import ROLE_REPEAT, Channel, Degradation, Role

ROWS_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

BATCH_ROWS = histogram("gateway_batch_rows", "Rows of a batch, by stage.", ("stage",), buckets=ROWS_BUCKETS)
QUEUE_TIME = histogram("gateway_queue_seconds", "How long the oldest row of a batch waited, by stage.", ("stage",))
FLUSHES = counter("gateway_batches", "Batches, by stage and why they left.", ("stage", "reason"))
INFER_TIME = histogram("gateway_infer_seconds", "Time of a call to a model, by where it ran.", ("place",))
ANSWERS = counter("gateway_answers", "Answers, by channel and role.", ("channel", "role"))
DEGRADED = counter("gateway_degraded_answers", "Answers that something was missing for.", ("degradation",))
REPEATS = counter("gateway_repeats", "Events that were answered before.", ("channel",))
REQUESTS = counter("gateway_requests", "gRPC calls, by method and status.", ("method", "status"))
UNSENT_ROWS = gauge("gateway_unsent_rows", "Rows that were answered and that their callers have not taken yet.")
REQUEST_TIME = histogram("gateway_request_seconds", "Time of a gRPC call.", ("method",))
SHADOW_ROWS = counter("gateway_shadow_rows", "Rows that a shadow version scored.")
SHED_SHADOW_ROWS = counter(
    "gateway_shed_shadow_rows", "Rows that no shadow version scored, for want of room or of a model."
)
HTTP_REQUESTS = counter("gateway_http_requests", "HTTP requests, by path and status.", ("path", "status"))
HTTP_REQUEST_TIME = histogram("gateway_http_request_seconds", "Time of an HTTP request.", ("path",))
SPOOL_BYTES = gauge("gateway_spool_bytes", "Answers that wait to be shipped to Kafka.")
SHIPPED = counter("gateway_shipped_records", "Predictions and events shipped from the spool.")
SHIPPING_FAILURES = counter("gateway_shipping_failures", "Attempts to ship that failed and are made again.")
SCORED_VECTORS = counter("gateway_scored_vectors", "Vectors that were scored from Kafka.")
REDELIVERED_VECTORS = counter("gateway_redelivered_vectors", "Vectors that were dropped as seen before.")
UNUSABLE_VECTORS = counter("gateway_unusable_vectors", "Vectors that were set aside.")
SCORER_RESTARTS = counter("gateway_scorer_restarts", "Times the Kafka scorer began anew after a fault of Kafka.")
ROUTE_EPOCH = gauge("gateway_route_epoch", "Epoch of the route table in use.")
CANARY_SHARE = gauge("gateway_canary_share_ratio", "Share of the entities that the canary answers.")
CANARY_FALLBACKS = counter("gateway_canary_fallback_rows", "Rows that the champion answered as the canary failed.")
SHADOWS = gauge("gateway_shadow_versions", "Versions that are scored beside the answer.")
LEFT_OUT = counter(
    "gateway_left_out_versions", "Canaries and shadows of other features than are computed here.", ("route",)
)
TRITON_AWAY = gauge("gateway_triton_away_ratio", "Share of the Triton servers that are away.")
TRITON_EJECTIONS = counter(
    "gateway_triton_ejections", "Times a Triton server was left alone, by reason: away, slow.", ("server", "reason")
)
TRITON_RETRIES = counter("gateway_triton_retries", "Batches sent to another Triton server, by reason.", ("reason",))
TRITON_HEDGES = counter("gateway_triton_hedges", "Batches sent to a second server before the first had answered.")
TRITON_OUTSTANDING = gauge("gateway_triton_outstanding_rows", "Rows sent and not answered.", ("server",))
TRITON_MISMATCHES = gauge(
    "gateway_triton_mismatched_versions",
    "Versions refused because the server's model takes other features.",
    ("server",),
)
_BY_MODEL = ("server", "model")
# What a server counts for all of its clients. Each process of a gateway sees the same: gauges, which nobody adds up.
TRITON_REQUESTS = gauge(
    "gateway_triton_recent_requests", "Requests that Triton answered in the last interval.", (*_BY_MODEL, "result")
)
TRITON_ROWS = gauge("gateway_triton_recent_rows", "Rows that Triton scored in the last interval.", _BY_MODEL)
TRITON_EXECUTION_ROWS = gauge(
    "gateway_triton_execution_rows", "Rows of a run of the model in Triton, mean of the last interval.", _BY_MODEL
)
TRITON_STAGE_TIME = gauge(
    "gateway_triton_stage_seconds",
    "Time of a request in Triton, mean of the last interval, by stage: queue, input, infer, output.",
    (*_BY_MODEL, "stage"),
)
ACCESS_DENIED = counter("gateway_access_denied", "Calls that were denied, by method and reason.", ("method", "reason"))
ACCESS_RELOAD_FAILURES = counter("gateway_access_reload_failures", "Changed access files that were not fit for use.")
CERTIFICATE_EXPIRY = gauge("gateway_certificate_expiry_seconds", "When the certificate in use ends, as Unix time.")


def count_answers(
    channel: Channel.ValueType, role: Role.ValueType, count: int, degradations: Iterable[Degradation.ValueType] = ()
) -> None:
    """Count answers that went out together.

    Args:
        channel: by which way.
        role: answer or repeat.
        count: how many.
        degradations: what was missing for each of them.
    """
    if not count:
        return
    way = Channel.Name(channel).removeprefix("CHANNEL_").lower()
    ANSWERS.labels(way, Role.Name(role).removeprefix("ROLE_").lower()).inc(count)
    if role == ROLE_REPEAT:
        REPEATS.labels(way).inc(count)
    for missing in degradations:
        DEGRADED.labels(Degradation.Name(missing).removeprefix("DEGRADATION_").lower()).inc(count)
