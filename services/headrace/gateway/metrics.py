"""What the gateway counts."""

from __future__ import annotations

from headrace.platform.metrics import counter, gauge, histogram

ROWS_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

BATCH_ROWS = histogram("gateway_batch_rows", "Rows of a batch, by stage.", ("stage",), buckets=ROWS_BUCKETS)
QUEUE_TIME = histogram("gateway_queue_seconds", "How long the oldest row of a batch waited, by stage.", ("stage",))
INFER_TIME = histogram("gateway_infer_seconds", "Time of a call to a model, by where it ran.", ("place",))
ANSWERS = counter("gateway_answers", "Answers, by channel and role.", ("channel", "role"))
DEGRADED = counter("gateway_degraded_answers", "Answers that something was missing for.", ("degradation",))
REPEATS = counter("gateway_repeats", "Events that were answered before.", ("channel",))
REQUESTS = counter("gateway_requests", "gRPC calls, by method and status.", ("method", "status"))
REQUEST_TIME = histogram("gateway_request_seconds", "Time of a gRPC call.", ("method",))
SPOOL_BYTES = gauge("gateway_spool_bytes", "Answers that wait to be shipped to Kafka.")
SHIPPED = counter("gateway_shipped_records", "Predictions and events shipped from the spool.")
SHIPPING_FAILURES = counter("gateway_shipping_failures", "Attempts to ship that failed and are made again.")
SCORED_VECTORS = counter("gateway_scored_vectors", "Vectors that were scored from Kafka.")
REDELIVERED_VECTORS = counter("gateway_redelivered_vectors", "Vectors that were dropped as seen before.")
UNUSABLE_VECTORS = counter("gateway_unusable_vectors", "Vectors that were set aside.")
SCORER_RESTARTS = counter("gateway_scorer_restarts", "Times the Kafka scorer began anew after a fault of Kafka.")
ROUTE_EPOCH = gauge("gateway_route_epoch", "Epoch of the route table in use.")
CANARY_SHARE = gauge("gateway_canary_share_ratio", "Share of the entities that the canary answers.")
SHADOWS = gauge("gateway_shadow_versions", "Versions that are scored beside the answer.")
LEFT_OUT = counter(
    "gateway_left_out_versions", "Canaries and shadows of other features than are computed here.", ("route",)
)
TRITON_AWAY = gauge("gateway_triton_away_ratio", "Share of the Triton servers that are away.")
