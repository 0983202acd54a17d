"""Prometheus metrics of the join."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from headrace.platform import metrics

OUTCOMES = metrics.counter("outcomes_published", "Outcomes published, all kinds.")
RECORDS = metrics.counter(
    "outcomes_records",
    "What became of predictions, labels and events: answer, repeat, shadow, joined, early_label, late_label, "
    "corrected, expired and so on.",
    ["fate"],
)
FORWARDED = metrics.counter(
    "outcomes_records_forwarded", "Records forwarded to the partition they belong to.", ["topic"]
)
REJECTED = metrics.counter("outcomes_records_rejected", "Records set aside.", ["topic", "reason"])
PENDING = metrics.gauge("outcomes_pending_events", "Events in the store.", ["partition", "state"])
LAG = metrics.gauge("outcomes_lag_offsets", "Offsets that are still to be read.", ["topic", "partition"])
WATERMARK = metrics.gauge(
    "outcomes_watermark_seconds",
    "Event time of the predictions less the lateness, since 1970-01-01 UTC.",
    ["partition"],
)
EXPIRED_UNTIL = metrics.gauge(
    "outcomes_expired_until_seconds", "Event time until which events have expired, since 1970-01-01 UTC.", ["partition"]
)
TRANSACTION = metrics.histogram("outcomes_transaction_seconds", "One transaction, from its begin to its commit.")

STATES = ("waiting", "unlabelled", "labelled", "closed")


def count(fates: Mapping[str, int]) -> None:
    """Add counts by fate."""
    for fate, records in fates.items():
        RECORDS.labels(fate).inc(records)


def show_store(partition: int, sizes: Mapping[str, int]) -> None:
    """Show the number of events in a partition's store, by state."""
    for state in STATES:
        PENDING.labels(partition, state).set(sizes.get(state, 0))


def forget(partition: int) -> None:
    """Show a partition no more, which is not of this process any more."""
    number = str(partition)
    gauges: list[tuple[Any, tuple[str, ...]]] = [
        *((PENDING, (number, state)) for state in STATES),
        *((LAG, (topic, number)) for topic in ("predictions", "labels")),
        (WATERMARK, (number,)),
        (EXPIRED_UNTIL, (number,)),
    ]
    for gauge, labels in gauges:
        with suppress(KeyError):
            gauge.remove(*labels)
