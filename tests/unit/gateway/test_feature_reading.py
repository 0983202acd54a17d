"""Features from what was read a moment ago: each vector is exactly that of the positions that it names."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.gateway.answer_records import AnswerRecords
from headrace.gateway.circuit_breaker import CircuitBreaker
from headrace.gateway.feature_cache import FeatureCache
from headrace.gateway.feature_reading import FeatureReading
from headrace.pipeline import Entity, EventSchema, Label, Model, Number, OnDemand, Pipeline, Text
from headrace.pipeline.events import EventColumns, hash_ids
from headrace.pipeline.state import FeaturePlan, compile_plan
from headrace.pipeline.stored_logs import EntityLogs
from headrace.platform.event_codec import CheckedEvent, event_columns
from headrace.platform.feature_state import FeatureStateReader, StateSnapshot, distinct
from headrace.platform.pipelines import load_pipeline
from headrace.v1.prediction_pb2 import DEGRADATION_FEATURES_DEFAULTED

pipeline = load_pipeline("pipelines/fraud.py")
PLAN = compile_plan(pipeline)
START_US = 1_600_000_000_000_000


class MemoryState:
    """The feature state in memory, as it was after each event."""

    def __init__(self) -> None:
        self.logs: defaultdict[tuple[int, str], bytes] = defaultdict(bytes)
        self.history = [dict(self.logs)]
        self.away = False
        self.reads = 0
        self.entities = len(PLAN.entities)

    def merge(self, event: CheckedEvent) -> None:
        columns = event_columns(pipeline, [event])
        for number, entity in enumerate(PLAN.entities):
            record = entity.event_records(columns, hash_ids(columns.ids))
            self.logs[number, columns.texts[entity.field][0]] += record.tobytes()
        self.history.append(dict(self.logs))

    @property
    def position(self) -> int:
        return len(self.history) - 2

    async def read(self, events: EventColumns, ride_along: Sequence[Any] = ()) -> StateSnapshot:
        if self.away:
            raise OSError("away")
        self.reads += len(events)
        return self.snapshot(events, self.position, len(ride_along[0]) - 1 if ride_along else 0)

    def snapshot(self, events: EventColumns, position: int, answers: int = 0) -> StateSnapshot:
        logs = self.history[position + 1]
        entities = []
        for number, plan in enumerate(PLAN.entities[: self.entities]):
            ids, slots = distinct(events.texts[plan.field])
            stored = [logs.get((number, text), b"") for text in ids]
            entities.append(EntityLogs(plan, ids, slots, stored, [b""] * len(ids) if plan.has_labels else []))
        fences = {"events/0": position} if position >= 0 else {}
        return StateSnapshot(tuple(entities), fences, position + 1, [[None] * answers], {})


class NoRecords:
    """Nothing was answered before."""

    def lookup_command(self, event_ids: Sequence[str]) -> tuple[str, ...]:
        return ("MGET", *event_ids)

    def local(self, event_ids: Sequence[str]) -> list[bytes | None]:
        return [None for _ in event_ids]


class Gateway:
    def __init__(self, cache_s: float) -> None:
        self.now = 0.0
        self.state = MemoryState()
        self.warned: list[str] = []
        self.reading = self.reading_with(FeatureCache(1 << 20, cache_s, lambda: self.now))
        self.made = 0

    def reading_with(self, cache: FeatureCache | None, plan: FeaturePlan = PLAN) -> FeatureReading:
        return FeatureReading(
            plan,
            cast("FeatureStateReader", self.state),
            cast("AnswerRecords", NoRecords()),
            timeout_s=5,
            breaker=CircuitBreaker(0.001, lambda: self.now),
            warn=self.warned.append,
            cache=cache,
        )

    def event(self, customer: str, terminal: str) -> CheckedEvent:
        self.made += 1
        texts, numbers = [customer, terminal], [float(self.made * 100)]
        return CheckedEvent(f"e{self.made}", START_US + self.made * 1_000_000, texts, numbers, answered=False)


def columns(events: Sequence[CheckedEvent]) -> EventColumns:
    return event_columns(pipeline, events)


KEYS = st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"))
STEPS = st.one_of(
    st.tuples(st.just("read"), st.lists(KEYS, min_size=1, max_size=4)),
    st.tuples(st.just("merge"), KEYS),
    st.tuples(st.just("wait"), st.sampled_from([0.1, 0.6, 2.0])),
)


@settings(max_examples=50)
@given(st.lists(STEPS, max_size=30))
def test_each_vector_is_that_of_its_positions(steps: list[tuple[str, Any]]) -> None:
    gateway = Gateway(1.0)
    for step in steps:
        match step:
            case ("merge", (customer, terminal)):
                gateway.state.merge(gateway.event(customer, terminal))
            case ("wait", seconds):
                gateway.now += seconds
            case ("read", keys):
                events = [gateway.event(*one) for one in keys]
                rows = asyncio.run(gateway.reading.read(columns(events)))
                for event, values, state in zip(events, rows.values, rows.states, strict=True):
                    position = state.event_positions[0] if state.event_positions else -1
                    other = Gateway(0)
                    other.state.history = gateway.state.history[: position + 2]
                    expected = asyncio.run(other.reading.read(columns([event])))
                    assert np.array_equal(values, expected.values[0])
                    assert state.newest_us == position + 1
                    assert not state.degradations


def test_keys_that_were_read_a_moment_ago_are_not_read_again() -> None:
    gateway = Gateway(1.0)
    gateway.state.merge(gateway.event("a", "x"))
    for _ in range(3):
        asyncio.run(gateway.reading.read(columns([gateway.event("a", "x"), gateway.event("b", "y")])))
    assert gateway.state.reads == 2
    gateway.now += 1.0
    asyncio.run(gateway.reading.read(columns([gateway.event("a", "x")])))
    assert gateway.state.reads == 3


def test_an_event_that_is_passed_on_ends_what_was_kept() -> None:
    gateway = Gateway(1.0)
    event = gateway.event("a", "x")
    asyncio.run(gateway.reading.read(columns([event])))
    gateway.reading.changing(columns([event]))
    gateway.state.merge(event)
    rows = asyncio.run(gateway.reading.read(columns([gateway.event("a", "x")])))
    assert rows.states[0].event_positions == [0]


def test_while_redis_is_away_what_was_read_a_moment_ago_still_counts() -> None:
    gateway = Gateway(1.0)
    gateway.state.merge(gateway.event("a", "x"))
    asyncio.run(gateway.reading.read(columns([gateway.event("a", "x")])))
    gateway.state.away = True
    rows = asyncio.run(gateway.reading.read(columns([gateway.event("a", "x"), gateway.event("c", "z")])))
    assert [list(state.degradations) for state in rows.states] == [[], [DEGRADATION_FEATURES_DEFAULTED]]
    assert rows.states[0].event_positions == [0]
    assert gateway.warned == ["OSError: away"]


def halves(events: EventColumns) -> npt.NDArray[np.float64]:
    return events.numbers["amount"] / 2


@pytest.mark.parametrize("cache_s", [0.0, 1.0], ids=["without cache", "with cache"])
def test_a_pipeline_without_windows_needs_no_keys(cache_s: float) -> None:
    declared = Pipeline(
        "given",
        event=EventSchema(Text("key"), Number("amount")),
        entities=[Entity("key", "key")],
        key="key",
        features=[OnDemand("half", halves)],
        label=Label(horizon=100),
        model=Model("none", lambda: None),
    )
    gateway = Gateway(cache_s)
    gateway.state.entities = 0
    reading = gateway.reading_with(FeatureCache(1 << 20, cache_s, lambda: 0.0), compile_plan(declared))
    for _ in range(2):
        found = [
            CheckedEvent(name, START_US, [name], [amount], answered=False) for name, amount in (("a", 1), ("b", 4))
        ]
        rows = asyncio.run(reading.read(event_columns(declared, found)))
        assert rows.values.tolist() == [[0.5], [2.0]]
        assert not any(state.degradations for state in rows.states)
