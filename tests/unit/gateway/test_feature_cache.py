"""The feature cache: what it gives was the state at the positions that it names, not long ago, within its bytes."""

from __future__ import annotations

import tracemalloc
from collections import defaultdict
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from headrace.gateway.cache_metrics import CacheMetrics
from headrace.gateway.feature_cache import FeatureCache, Moment

MAX_AGE_S = 2.0


class State:
    """A feature state that changes, and a cache before it."""

    def __init__(self, capacity: int = 1 << 20, max_age_s: float = MAX_AGE_S) -> None:
        self.now = 100.0
        self.logs: defaultdict[tuple[int, str], bytes] = defaultdict(bytes)
        self.position = 0
        self.history = [dict(self.logs)]
        self.merged_at = [self.now]
        self.cache = FeatureCache(capacity, max_age_s, lambda: self.now)

    def merge(self, ids: list[str]) -> None:
        self.position += 1
        for key in enumerate(ids):
            self.logs[key] += self.position.to_bytes(4)
        self.history.append(dict(self.logs))
        self.merged_at.append(self.now)

    def read(self, rows: list[list[str]]) -> list[bool]:
        """Look up, check what was found, read the rest; whether each was found."""
        found = self.cache.lookup(rows)
        for ids, logs in zip(rows, found, strict=True):
            if logs is None:
                continue
            positions = {one.moment.event_positions[0] for one in logs if one.moment}
            assert len(positions) == 1
            at = positions.pop()
            assert [one.events for one in logs] == [self.history[at].get(key, b"") for key in enumerate(ids)]
            for one in logs:
                assert one.moment is not None
                assert self.now - one.moment.read_at < MAX_AGE_S
                assert one.moment.newest_us == at
        moment = Moment([self.position], [-1], self.position, self.cache.now())
        missing = [ids for ids, logs in zip(rows, found, strict=True) if logs is None]
        for entity, of_entity in enumerate(zip(*missing, strict=True)):
            distinct = sorted(set(of_entity))
            self.cache.store(entity, distinct, [self.logs[entity, text] for text in distinct], [], moment)
        assert self.cache.size_bytes <= 1 << 20
        return [logs is not None for logs in found]


IDS = st.lists(st.sampled_from("abcd"), min_size=2, max_size=2)
STEPS = st.one_of(
    st.tuples(st.just("read"), st.lists(IDS, min_size=1, max_size=5)),
    st.tuples(st.just("merge"), IDS),
    st.tuples(st.just("changing"), IDS),
    st.tuples(st.just("wait"), st.floats(0.01, 3)),
)


@given(st.lists(STEPS, max_size=40))
def test_what_is_found_is_the_state_of_its_positions_and_young(steps: list[tuple[str, Any]]) -> None:
    state = State()
    for step in steps:
        match step:
            case ("read", rows):
                state.read(rows)
            case ("merge", ids):
                state.merge(ids)
            case ("changing", ids):
                state.cache.changing(ids)
            case ("wait", seconds):
                state.now += seconds


def test_an_event_whose_keys_are_of_two_states_is_read_anew() -> None:
    state = State()
    assert state.read([["a", "x"]]) == [False]
    state.merge(["c", "z"])
    assert state.read([["b", "y"]]) == [False]
    assert state.read([["a", "x"], ["b", "y"], ["a", "y"]]) == [True, True, False]
    # Both were read again together.
    assert state.read([["a", "y"]]) == [True]


def test_while_nothing_is_merged_each_key_counts_by_itself() -> None:
    state = State()
    state.read([["a", "x"]])
    state.now += 0.5
    state.read([["b", "y"]])
    assert state.read([["a", "y"], ["b", "x"]]) == [True, True]


def test_after_its_age_a_log_is_read_again() -> None:
    state = State()
    state.read([["a", "x"]])
    state.now += MAX_AGE_S - 0.01
    assert state.read([["a", "x"]]) == [True]
    state.now += 0.02
    assert state.read([["a", "x"]]) == [False]


def test_an_event_that_was_passed_on_is_seen_as_soon_as_it_is_merged() -> None:
    state = State()
    state.read([["a", "x"]])
    state.cache.changing(["a", "x"])
    # Read before it is merged: not kept.
    assert state.read([["a", "x"]]) == [False]
    state.merge(["a", "x"])
    assert state.read([["a", "x"]]) == [False]
    state.now += MAX_AGE_S + 0.01
    assert state.read([["a", "x"]]) == [False]
    assert state.read([["a", "x"]]) == [True]


def test_off_without_bytes_or_age() -> None:
    for state in (State(capacity=0), State(max_age_s=0)):
        assert not state.cache.enabled
        state.cache.changing(["a", "x"])
        assert state.read([["a", "x"]]) == [False]
        assert state.read([["a", "x"]]) == [False]
        assert (len(state.cache), state.cache.counts.misses) == (0, 0)


def test_the_process_grows_by_no_more_than_the_bound() -> None:
    capacity = 1 << 20
    cache = FeatureCache(capacity, 60.0, lambda: 0.0)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for i in range(6_000):
            moment = Moment([i], [i], i, 0.0)
            cache.store(i % 2, [f"entity-{i}"], [bytes(i % 900)], [bytes(i % 90)], moment)
            if i % 10 == 0:
                cache.changing([f"other-{i}", f"terminal-{i}"])
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert cache.counts.evictions > 3_000
    assert 0.5 * capacity < grown <= capacity


def test_metrics_tell_the_hit_rate_of_each_cache() -> None:
    state = State()
    registry = CollectorRegistry()
    CacheMetrics(registry).watch("features", state.cache)
    state.read([["a", "x"]])
    state.read([["a", "x"], ["b", "x"]])
    labels = {"cache": "features"}
    name = "headrace_gateway_cache"
    assert registry.get_sample_value(f"{name}_lookups_total", labels | {"result": "hit"}) == 1
    assert registry.get_sample_value(f"{name}_lookups_total", labels | {"result": "miss"}) == 2
    assert registry.get_sample_value(f"{name}_entries", labels) == 3
    assert registry.get_sample_value(f"{name}_bytes", labels) == state.cache.size_bytes
