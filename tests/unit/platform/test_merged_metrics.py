"""Pages of several processes as one."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from headrace.platform.merged_metrics import MergedMetrics
from headrace.platform.metrics import counter, gauge, histogram


def page(answers: int, waiting: int, took: float) -> str:
    """What one process shows."""
    registry = CollectorRegistry()
    counter("mill_answers", "Answers.", ("channel",), registry=registry).labels("unary").inc(answers)
    gauge("mill_spool_bytes", "Waiting.", registry=registry).set(waiting)
    histogram("mill_call_seconds", "Time.", buckets=(0.1, 1.0), registry=registry).observe(took)
    return generate_latest(registry).decode()


def lines(metrics: MergedMetrics) -> list[str]:
    return [line for line in metrics.page().decode().splitlines() if not line.startswith("#")]


def test_totals_are_added_up_and_gauges_named() -> None:
    metrics = MergedMetrics()
    metrics.update("0-0", page(3, 10, 0.05))
    metrics.update("0-1", page(4, 20, 0.5))
    assert lines(metrics) == [
        'headrace_mill_answers_total{channel="unary"} 7.0',
        'headrace_mill_call_seconds_bucket{le="0.1"} 1.0',
        'headrace_mill_call_seconds_bucket{le="1.0"} 2.0',
        'headrace_mill_call_seconds_bucket{le="+Inf"} 2.0',
        "headrace_mill_call_seconds_count 2.0",
        "headrace_mill_call_seconds_sum 0.55",
        'headrace_mill_spool_bytes{process="0-0"} 10.0',
        'headrace_mill_spool_bytes{process="0-1"} 20.0',
    ]


def test_the_totals_of_a_process_outlive_it() -> None:
    metrics = MergedMetrics()
    metrics.update("0-0", page(3, 10, 0.05))
    metrics.end("0-0")
    metrics.end("never seen")
    metrics.update("0-0", page(1, 5, 0.05))
    assert 'headrace_mill_answers_total{channel="unary"} 4.0' in lines(metrics)
    assert 'headrace_mill_spool_bytes{process="0-0"} 5.0' in lines(metrics)
    metrics.end("0-0")
    assert [line for line in lines(metrics) if "spool" in line] == []
    assert "headrace_mill_call_seconds_count 2.0" in lines(metrics)


def test_a_page_keeps_its_types() -> None:
    metrics = MergedMetrics(left_out=("headrace_mill_spool",))
    metrics.update("0-0", page(3, 10, 0.05))
    text = metrics.page().decode()
    assert "# TYPE headrace_mill_answers_total counter" in text
    assert "# TYPE headrace_mill_call_seconds histogram" in text
    assert "spool" not in text
