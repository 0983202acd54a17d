from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from headrace.platform.metrics import counter, gauge, histogram


def test_names_have_the_prefix_and_the_unit() -> None:
    registry = CollectorRegistry()
    counter("mill_events", "Events.", ["kind"], registry=registry).labels("a").inc()
    gauge("mill_lag_offsets", "Lag.", registry=registry).set(2)
    histogram("mill_wait_seconds", "Wait.", buckets=(0.1, 1.0), registry=registry).observe(0.5)
    text = generate_latest(registry).decode()
    assert 'headrace_mill_events_total{kind="a"} 1.0' in text
    assert "headrace_mill_lag_offsets 2.0" in text
    assert 'headrace_mill_wait_seconds_bucket{le="1.0"} 1.0' in text


def test_a_name_without_a_unit_is_refused() -> None:
    with pytest.raises(ValueError, match="'mill_wait' does not say its unit"):
        histogram("mill_wait", "Wait.", registry=CollectorRegistry())
