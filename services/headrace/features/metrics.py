"""What the stream processor counts."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

MERGED_EVENTS = Counter("headrace_features_merged_events_total", "Events beyond the fence")
DUPLICATE_EVENTS = Counter("headrace_features_duplicate_events_total", "Events whose id was in all their logs already")
REJECTED_EVENTS = Counter("headrace_features_rejected_events_total", "Events set aside", ["reason"])
MERGED_OUTCOMES = Counter("headrace_features_merged_outcomes_total", "Outcomes beyond the fence")
EMITTED_VECTORS = Counter("headrace_features_emitted_vectors_total", "Vectors published")
REDELIVERED_EVENTS = Counter(
    "headrace_features_redelivered_events_total", "Events at or below the fence: evaluated again and not merged"
)
OVERTAKEN_BATCHES = Counter(
    "headrace_features_overtaken_batches_total", "Batches evaluated again because another worker wrote to their keys"
)
REWRITTEN_LOGS = Counter("headrace_features_rewritten_logs_total", "Logs trimmed")
SWEPT_LOGS = Counter("headrace_features_swept_logs_total", "Logs of idle keys deleted by event time")
FENCES_MOVED = Counter("headrace_features_fences_moved_total", "Fences found where this worker had not left them")
EVENT_TIME = Gauge("headrace_features_event_time_seconds", "Highest event time accepted, by partition", ["partition"])
REJECTED_RECORDS = Counter(
    "headrace_rejected_records_total", "Records in `rejected`, from all services", ["service", "reason"]
)
