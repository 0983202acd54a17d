from __future__ import annotations

import uuid

import pytest
from prometheus_client import REGISTRY

from headrace.gateway.triton_server import ModelCounts
from headrace.gateway.triton_statistics import ServerStatistics


def counts(model: str = "m", requests: int = 0, failures: int = 0) -> ModelCounts:
    """Of requests with 4 rows each, two of them in a run, that waited 0.5 s and ran 1 s."""
    seconds = 0.5 * requests
    return ModelCounts(model, requests, failures, 4 * requests, requests // 2, seconds, seconds, 2 * seconds, seconds)


@pytest.fixture
def server() -> str:
    # The registry is the process's own: a name that no other test has.
    return uuid.uuid4().hex


def value(server: str, what: str, model: str = "m", **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"headrace_gateway_triton_{what}", {"server": server, "model": model} | labels)


def test_what_is_exported_is_what_happened_between_the_last_two_looks(server: str) -> None:
    statistics = ServerStatistics(server)
    statistics.update([counts(requests=100)], {"m"})
    assert value(server, "recent_rows") is None
    statistics.update([counts(requests=104)], {"m"})
    statistics.update([counts(requests=110, failures=1)], {"m"})
    assert value(server, "recent_requests", result="success") == 6
    assert value(server, "recent_requests", result="failure") == 1
    assert value(server, "recent_rows") == 24
    assert value(server, "execution_rows") == 8
    assert value(server, "stage_seconds", stage="queue") == pytest.approx(0.5)
    assert value(server, "stage_seconds", stage="infer") == pytest.approx(1)
    statistics.update([counts(requests=110, failures=1)], {"m"})
    assert value(server, "recent_rows") == 0
    assert value(server, "stage_seconds", stage="queue") == 0


def test_a_model_that_was_loaded_anew_takes_nothing_back(server: str) -> None:
    statistics = ServerStatistics(server)
    statistics.update([counts(requests=100)], {"m"})
    statistics.update([counts(requests=6)], {"m"})
    assert value(server, "recent_requests", result="success") == 6


def test_a_model_that_came_later_counts_from_its_beginning_and_loses_its_metrics_when_it_goes(server: str) -> None:
    statistics = ServerStatistics(server)
    statistics.update([counts(requests=1)], {"m", "new"})
    statistics.update([counts(requests=1), counts("new", requests=7)], {"m", "new"})
    assert value(server, "recent_requests", "new", result="success") == 7
    statistics.update([counts(requests=1)], {"m", "new"})
    assert value(server, "recent_requests", "new", result="success") is None
    assert value(server, "recent_requests", result="success") == 0
    statistics.close()
    assert value(server, "recent_requests", result="success") is None


def test_models_of_others_are_left_out_and_start_at_nothing_when_they_are_asked_for(server: str) -> None:
    statistics = ServerStatistics(server)
    statistics.update([counts(requests=100)], set())
    statistics.update([counts(requests=110)], set())
    assert value(server, "recent_requests", result="success") is None
    statistics.update([counts(requests=113)], {"m"})
    assert value(server, "recent_requests", result="success") == 3
