"""What the stream processor counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prometheus_client import Counter, Gauge
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from headrace.features.data_quality import FieldQuality

MERGED_EVENTS = Counter("headrace_features_merged_events_total", "Events beyond the fence")
DUPLICATE_EVENTS = Counter("headrace_features_duplicate_events_total", "Events whose id was in all their logs already")
LATE_EVENTS = Counter(
    "headrace_features_late_events_total", "Events merged though later than allowed: their vectors are marked late"
)
REJECTED_EVENTS = Counter("headrace_features_rejected_events_total", "Events set aside", ["reason"])
MERGED_OUTCOMES = Counter("headrace_features_merged_outcomes_total", "Outcomes beyond the fence")
EMITTED_VECTORS = Counter("headrace_features_emitted_vectors_total", "Vectors published")
REDELIVERED_EVENTS = Counter(
    "headrace_features_redelivered_events_total", "Events at or below the fence: evaluated again and not merged"
)
OVERTAKEN_EVENTS = Counter(
    "headrace_features_overtaken_events_total", "Events evaluated again because another worker wrote to their keys"
)
REWRITTEN_LOGS = Counter("headrace_features_rewritten_logs_total", "Logs trimmed")
SWEPT_LOGS = Counter("headrace_features_swept_logs_total", "Logs of idle keys deleted by event time")
FENCES_MOVED = Counter("headrace_features_fences_moved_total", "Fences found where this worker had not left them")
EVENT_TIME = Gauge("headrace_features_event_time_seconds", "Highest event time accepted, by partition", ["partition"])
REJECTED_RECORDS = Counter(
    "headrace_rejected_records_total", "Records in `rejected`, from all services", ["service", "reason"]
)


class DataQualityCollector(Collector):
    """Exports statistics of fields as they are when metrics are asked for. Labels are names of fields and reasons."""

    def __init__(self, summary: Callable[[], Sequence[FieldQuality]]) -> None:
        """Args:
        summary: gives the statistics.
        """
        self._summary = summary

    def collect(self) -> Iterable[CounterMetricFamily | GaugeMetricFamily]:
        """The metrics."""
        prefix = "headrace_features_field_"
        values = CounterMetricFamily(f"{prefix}values", "Accepted events that have the field", labels=["field"])
        absent = CounterMetricFamily(f"{prefix}absent", "Accepted events without the field", labels=["field"])
        new = CounterMetricFamily(f"{prefix}new_values", "Events with a value not seen before", labels=["field"])
        refused = CounterMetricFamily(
            f"{prefix}refused",
            "Events set aside for the field; empty: as a whole",
            labels=["field", "reason"],
        )
        minimum = GaugeMetricFamily(f"{prefix}minimum", "Smallest value since the start", labels=["field"])
        maximum = GaugeMetricFamily(f"{prefix}maximum", "Largest value since the start", labels=["field"])
        distinct = GaugeMetricFamily(f"{prefix}distinct_values", "Different values, estimated", labels=["field"])
        for one in self._summary():
            for reason, count in one.refused.items():
                refused.add_metric([one.name, reason], count)
            if one.distinct is None and one.minimum is None and not one.absent:  # id, time, or nothing seen yet
                continue
            values.add_metric([one.name], one.values)
            absent.add_metric([one.name], one.absent)
            if one.minimum is not None and one.maximum is not None:
                minimum.add_metric([one.name], one.minimum)
                maximum.add_metric([one.name], one.maximum)
            if one.distinct is not None:
                distinct.add_metric([one.name], one.distinct)
            if one.new is not None:
                new.add_metric([one.name], one.new)
        return [values, absent, new, refused, minimum, maximum, distinct]
