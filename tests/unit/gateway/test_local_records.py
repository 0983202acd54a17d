"""The answers that a process remembers by itself: for a while, within their bytes."""

from __future__ import annotations

import tracemalloc

from headrace.gateway.answer_records import LocalRecords


def test_a_record_counts_for_its_window() -> None:
    now = 0.0
    local = LocalRecords(300, 1 << 20, lambda: now)
    assert local.claim("a", b"first") is None
    assert local.claim("a", b"second") == b"first"
    now = 300.0
    assert local.claim("a", b"third") is None
    assert local.get("a") == b"third"


def test_local_records_are_bounded() -> None:
    local = LocalRecords(300, 3000, lambda: 0.0)
    for name in "abc":
        local.put(name, bytes(800))
    assert local.size_bytes <= 3000
    assert [local.get(name) for name in "abc"] == [None, bytes(800), bytes(800)]
    assert (local.counts.hits, local.counts.misses, local.counts.evictions) == (2, 1, 1)


def test_local_records_take_no_more_memory_than_their_bound() -> None:
    capacity = 4 << 20
    local = LocalRecords(300, capacity, lambda: 0.0)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for i in range(30_000):
            local.claim(f"event-{i}", bytes(300 + i % 200))
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 0.5 * capacity < grown <= capacity
