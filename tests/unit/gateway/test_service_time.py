"""What is learned about calls from how long they took."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.gateway.service_time import ServiceTime, Spacing


def learned(a_s: float, b_s: float, noise: float = 0.0, calls: int = 200) -> ServiceTime:
    chance = random.Random(1)
    time = ServiceTime()
    for _ in range(calls):
        rows = chance.randint(1, 500)
        time.add(rows, (a_s + b_s * rows) * (1 + noise * chance.uniform(-1, 1)))
    return time


@pytest.mark.parametrize(("a_s", "b_s"), [(0.3e-3, 2e-6), (2e-3, 20e-6), (0.0, 1e-5), (1e-3, 0.0)])
def test_time_is_a_line_over_rows(a_s: float, b_s: float) -> None:
    time = learned(a_s, b_s)
    for rows in (1, 100, 1000):
        assert time.of(rows) == pytest.approx(a_s + b_s * rows, rel=1e-3, abs=1e-6)
    noisy = learned(a_s, b_s, noise=0.2)
    assert noisy.of(200) == pytest.approx(a_s + b_s * 200, rel=0.15)
    assert 0 < noisy.at_least(200) < noisy.of(200)


def test_nothing_is_known_before_the_first_call() -> None:
    assert ServiceTime().of(100) == 0
    assert ServiceTime().at_least(100) == 0


def test_one_pause_is_no_trend_and_a_slower_server_is() -> None:
    time = learned(1e-3, 0.0)
    time.add(10, 1.0)
    assert time.of(10) < 1.3e-3
    for _ in range(100):
        time.add(10, 3e-3)
    assert time.of(10) == pytest.approx(3e-3, rel=0.1)


def test_calls_of_one_size_have_no_slope() -> None:
    time = ServiceTime()
    for i in range(100):
        time.add(64, 1e-3 + 1e-6 * (i % 3))
    assert time.of(1) == pytest.approx(time.of(1000), rel=1e-2)


@given(st.lists(st.tuples(st.integers(1, 4096), st.floats(0, 10)), min_size=1, max_size=60), st.integers(1, 4096))
def test_times_are_never_negative_and_never_fall_with_rows(calls: list[tuple[int, float]], rows: int) -> None:
    time = ServiceTime()
    for each, took in calls:
        time.add(each, took)
    assert 0 <= time.at_least(rows) <= time.of(rows) <= time.of(2 * rows) + 1e-12


def occupied(share: float, gaps: list[float], noise: float) -> Spacing:
    """A server that a call occupies for a share of its time, 1 s."""
    chance = random.Random(2)
    spacing = Spacing(0.5)
    wait_before = 0.0
    for gap in gaps:
        wait = max(0.0, wait_before + share - gap)
        spacing.add(gap, max(0.0, wait + noise * chance.uniform(-1, 1)), wait_before, 1.0, noise / 2)
        wait_before = wait
    return spacing


@pytest.mark.parametrize("share", [0.5, 0.7, 1.0])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_what_a_call_occupies_the_server_for_is_found_from_waits(share: float, noise: float) -> None:
    chance = random.Random(3)
    gaps = [share * chance.uniform(0.6, 1.3) for _ in range(300)]
    assert occupied(share, gaps, noise).share == pytest.approx(share, abs=0.12)


def test_a_time_that_must_have_been_estimated_too_low_is_noticed() -> None:
    spacing = Spacing(0.5)
    noticed = [spacing.add(1.0, 1.0 + i, float(i), 1.0, 0.0) for i in range(50)]
    assert noticed[-1]
    spacing = Spacing(0.5)
    assert not any(spacing.add(0.5, 0.0, 0.0, 1.0, 0.0) for _ in range(50))
