"""Calls are due whether or not earlier ones have their answers, and latencies count from there."""

from __future__ import annotations

import numpy as np
import pytest

from loadtests.gateway.open_loop import PERCENTILES, Latencies, arrivals, latencies, middle


def test_constant_arrivals_are_evenly_spaced() -> None:
    assert arrivals(100.0, 4, "constant").tolist() == pytest.approx([0.0, 0.01, 0.02, 0.03])


def test_poisson_arrivals_have_the_rate_and_its_irregularity() -> None:
    due = arrivals(1000.0, 50_000, "poisson")
    gaps = np.diff(due)
    assert (gaps > 0).all()
    assert 1 / gaps.mean() == pytest.approx(1000.0, rel=0.02)
    # The standard deviation of exponential gaps is their mean.
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.03)


def test_the_same_seed_gives_the_same_arrivals() -> None:
    assert arrivals(10.0, 5, "poisson", seed=3).tolist() == arrivals(10.0, 5, "poisson", seed=3).tolist()
    assert arrivals(10.0, 5, "poisson", seed=3).tolist() != arrivals(10.0, 5, "poisson", seed=4).tolist()


def test_a_rate_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        arrivals(0.0, 5, "constant")


def test_a_pause_of_the_server_is_seen_by_all_who_came_meanwhile() -> None:
    due = arrivals(100.0, 1000, "constant")
    # It answers in 1 ms, but stands still from 5 s to 6 s.
    ended = np.where((due >= 5) & (due < 6), 6.0, due) + 0.001
    found = latencies(due, ended)
    assert found.p50_ms == pytest.approx(1.0)
    # A tenth of the callers came while it stood still; a closed loop would have seen one slow call.
    assert found.percentiles_ms[PERCENTILES.index(95.0)] == pytest.approx(550, rel=0.05)
    assert found.p99_ms == pytest.approx(910, rel=0.05)
    assert found.failed == 0
    assert found.offered == pytest.approx(100, rel=0.01)


def test_the_warm_up_does_not_count() -> None:
    due = arrivals(100.0, 100, "constant")
    ended = due + np.where(np.arange(100) < 10, 5.0, 0.002)
    assert latencies(due, ended).percentiles_ms == pytest.approx([2.0] * len(PERCENTILES))


def test_calls_without_an_answer_are_a_share_and_no_latency() -> None:
    due = arrivals(100.0, 100, "constant")
    ended = due + 0.002
    ended[55:] = np.nan
    found = latencies(due, ended)
    assert found.failed == pytest.approx(0.5)
    assert found.answered == pytest.approx(found.offered / 2, rel=0.05)
    assert found.p99_ms == pytest.approx(2.0)


def test_what_is_answered_long_after_the_last_call_lowers_the_rate() -> None:
    due = arrivals(100.0, 100, "constant")
    found = latencies(due, due + np.linspace(0, 1, 100))
    assert found.answered == pytest.approx(90 / 1.9, rel=0.02)


def test_nothing_answered_is_said() -> None:
    due = arrivals(100.0, 100, "constant")
    with pytest.raises(ValueError, match="0 of 90 calls were answered"):
        latencies(due, np.full(100, np.nan))
    with pytest.raises(ValueError, match="100 calls were due, and 99 ended"):
        latencies(due, due[:-1])


def test_the_middle_run_is_the_one_with_the_median_p99() -> None:
    runs = [Latencies(1.0, 1.0, 0.0, (1.0, 2.0, p99, 9.0)) for p99 in (5.0, 3.0, 4.0)]
    assert middle(runs).p99_ms == 4.0
    assert middle(runs[:2]).p99_ms == 3.0
