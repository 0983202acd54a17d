"""The answers that a process remembers by itself: for a while, within their bytes."""

from __future__ import annotations

import tracemalloc

from headrace.gateway.answer_records import LocalRecords


def test_a_record_counts_for_its_window() -> None:
    now = 0.0
    local = LocalRecords(300, 1 << 20, lambda: now)
    assert local.claim(["a", "b"], [b"first", b"other"]) == [None, None]
    assert local.claim(["c", "a", "c"], [b"1", b"second", b"2"]) == [None, b"first", b"1"]
    now = 299.0
    assert local.lookup(["a", "d"]) == [b"first", None]
    now = 300.0
    assert local.lookup(["a"]) == [None]
    assert local.claim(["a"], [b"third"]) == [None]
    assert local.lookup(["a"]) == [b"third"]
    # What has ended has left.
    assert len(local) == 1


def test_local_records_are_bounded() -> None:
    local = LocalRecords(300, 3400, lambda: 0.0)
    for name in "abc":
        local.put([name], [bytes(800)])
    assert local.size_bytes <= 3400
    assert local.lookup(list("abc")) == [None, bytes(800), bytes(800)]
    assert (local.counts.hits, local.counts.misses, local.counts.evictions) == (2, 1, 1)


def test_local_records_take_no_more_memory_than_their_bound() -> None:
    capacity = 4 << 20
    local = LocalRecords(300, capacity, lambda: 0.0)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for i in range(30_000):
            local.claim([f"event-{i}"], [bytes(300 + i % 200)])
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 0.5 * capacity < grown <= capacity
