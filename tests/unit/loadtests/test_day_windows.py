"""The controls' stream jobs compute what they say: counts and means over whole days."""

from __future__ import annotations

import numpy as np

from headrace.v1.event_pb2 import Event
from headrace.v1.vector_pb2 import FeatureVector
from loadtests.controls.day_windows import (
    DAY_US,
    DELAY,
    WINDOWS,
    Buckets,
    customer_values,
    decode,
    encode,
    terminal_values,
)


def test_windows_are_those_of_a_plain_loop() -> None:
    random = np.random.default_rng(1)
    days = np.sort(random.integers(0, 90, 400)).tolist()
    cents = random.integers(1, 1000, 400).tolist()
    of_customer: Buckets = []
    of_terminal: Buckets = []
    for at, (day, amount) in enumerate(zip(days, cents, strict=True)):
        expected: list[float] = []
        for window in WINDOWS:
            within = [c for d, c in zip(days[: at + 1], cents[: at + 1], strict=True) if d > day - window]
            expected += (len(within), sum(within) / len(within) / 100)
        assert customer_values(of_customer, day, amount) == expected
        assert terminal_values(of_terminal, day) == [
            sum(day - DELAY - window < d <= day - DELAY for d in days[: at + 1]) for window in WINDOWS
        ]
    assert len(of_customer) <= WINDOWS[-1]
    assert len(of_terminal) <= WINDOWS[-1] + DELAY


def test_they_read_events_and_write_vectors() -> None:
    event = Event(event_id="e1", event_time_us=3 * DAY_US + 5, texts=["c1", "t1"], numbers=[250.0])
    event_id, day, customer, terminal, cents = decode(event.SerializeToString())
    assert (event_id, day, customer, terminal, cents) == ("e1", 3, "c1", "t1", 250)
    vector = FeatureVector.FromString(encode(event_id, day, customer, terminal, [1.0, 2.5]))
    assert list(vector.values) == [1.0, 2.5]
    assert list(vector.entities) == ["c1", "t1"]
