"""The window evaluation equals the definition, however the stream was cut."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.pipeline import (
    Decision,
    Entity,
    EventColumns,
    EventSchema,
    FeatureView,
    Label,
    Model,
    Money,
    Number,
    OnDemand,
    Pipeline,
    Text,
    count,
    label_count,
    label_rate,
    mean,
    total,
)
from headrace.pipeline.events import hash_ids
from headrace.pipeline.recompute import EventHistory, LabelHistory, Positions, recompute
from headrace.pipeline.state import LABEL_RECORD, compile_plan, label_records
from headrace.pipeline.windows import EntityState, SortedLog, feature_vectors


def amount(events: EventColumns) -> np.ndarray:
    return events.numbers["cents"] / 100


pipeline = Pipeline(
    "windows",
    event=EventSchema(Text("customer"), Text("terminal"), Money("cents", maximum=10_000), Number("weight", scale=1000)),
    entities=[Entity("customer", "customer"), Entity("terminal", "terminal")],
    key="customer",
    features=[
        OnDemand("amount", amount),
        FeatureView(
            "customer",
            count(10, hop=1, name="count_10"),
            mean("cents", 10, hop=1, name="mean_10", default=-1.0),
            total("weight", 20, hop=5, name="weight_20"),
            count(20, hop=5, delay=10, name="count_20_10"),
        ),
        FeatureView(
            "terminal",
            count(12, delay=6, hop=3, name="count_12"),
            label_rate(12, delay=6, hop=3, name="rate_12"),
            label_rate(12, delay=6, hop=3, name="labelled_rate_12", over="labelled", default=0.5),
            label_count(30, delay=6, hop=1, name="positives_30"),
        ),
    ],
    label=Label(horizon=100),
    model=Model("none", lambda: None, Decision()),
    lateness=1000,
)
plan = compile_plan(pipeline)

Row = tuple[int, int, int, int, int]
rows = st.lists(
    st.tuples(st.integers(1, 60), st.integers(0, 2), st.integers(0, 2), st.integers(0, 10_000), st.integers(-50, 50)),
    min_size=1,
    max_size=30,
)
labels = st.lists(
    st.tuples(st.integers(0, 29), st.integers(0, 40), st.integers(0, 1), st.sampled_from([None, 0, 1])), max_size=20
)


def columns(data: list[Row]) -> EventColumns:
    return EventColumns.from_rows(
        pipeline.event,
        [f"e{i}" for i in range(len(data))],
        [row[0] for row in data],
        [[f"c{row[1]}", f"t{row[2]}"] for row in data],
        [[row[3], row[4] / 8] for row in data],
    )


@settings(max_examples=100, deadline=None)
@given(data=rows, outcomes=labels, seed=st.integers(0, 2**32 - 1))
def test_windows_equal_the_recomputation(
    data: list[Row], outcomes: list[tuple[int, int, int, int | None]], seed: int
) -> None:
    random = np.random.default_rng(seed)
    events = columns(data)
    outcomes = [outcome for outcome in outcomes if outcome[0] < len(data)]
    of = [outcome[0] for outcome in outcomes]
    history = EventHistory(events, np.zeros(len(data), np.int64), np.arange(len(data)))
    known = events.times[of] + np.array([outcome[1] for outcome in outcomes], np.int64)
    values = np.array([outcome[2] for outcome in outcomes], np.float64)
    previous = np.array([np.nan if outcome[3] is None else outcome[3] for outcome in outcomes], np.float64)
    ids = [events.ids[i] for i in of]
    label_history = LabelHistory(
        ids,
        [[events.texts[e.field][i] for i in of] for e in pipeline.entities],
        events.times[of],
        known,
        values,
        previous,
        np.zeros(len(of), np.int64),
        np.arange(len(of)),
    )
    merged = int(random.integers(0, len(data) + 1))
    learned = int(random.integers(0, len(of) + 1))
    additions = label_records(ids, events.times[of], known, values, previous)[:learned]
    states = []
    for entity in plan.entities:
        keys = events.texts[entity.field]
        index = {key: slot for slot, key in enumerate(dict.fromkeys(keys))}
        slots = np.array([index[key] for key in keys])
        order = random.permutation(merged)
        stored_until = int(random.integers(0, merged + 1))
        records = entity.event_records(events, hash_ids(events.ids))
        stored = [b""] * len(index)
        for i in order[:stored_until].tolist():
            stored[slots[i]] += records[i : i + 1].tobytes()
        rest = order[stored_until:]
        log = SortedLog.from_values(stored, entity.event_record, records[rest], slots[rest])
        label_slots = np.array([index[keys[i]] for i in of[:learned]], np.int64)
        states.append(
            EntityState(slots, log, SortedLog.from_values([b""] * len(index), LABEL_RECORD, additions, label_slots))
        )
    got = feature_vectors(plan, events, states)
    positions = Positions(np.full((len(data), 1), merged - 1, np.int64), np.full((len(data), 1), learned - 1, np.int64))
    np.testing.assert_array_equal(got, recompute(plan, events, positions, history, label_history))


def test_an_event_counts_itself_once_whether_merged_or_not() -> None:
    events = columns([(5, 0, 0, 100, 0), (5, 0, 0, 300, 0)])
    records = plan.entities[0].event_records(events, hash_ids(events.ids))
    empty = SortedLog.from_values([b""], LABEL_RECORD, np.zeros(0, LABEL_RECORD), np.zeros(0, np.int64))
    for stored in (b"", records.tobytes()):
        log = SortedLog.from_values([stored], records.dtype, records[:0], np.zeros(0, np.int64))
        terminal = SortedLog.from_values(
            [b""], plan.entities[1].event_record, np.zeros(0, plan.entities[1].event_record), np.zeros(0, np.int64)
        )
        states = [EntityState(np.zeros(2, np.int64), log, None), EntityState(np.zeros(2, np.int64), terminal, empty)]
        vectors = feature_vectors(plan, events, states)
        np.testing.assert_array_equal(vectors[:, 1:3], [[1, 1.0], [1, 3.0]])


def test_a_header_is_no_event() -> None:
    entity = plan.entities[0]
    events = columns([(5, 0, 0, 100, 0)])
    log = SortedLog.from_values(
        [entity.header(entity.event_record, 7)],
        entity.event_record,
        np.zeros(0, entity.event_record),
        np.zeros(0, np.int64),
    )
    states = [
        EntityState(np.zeros(1, np.int64), log, None),
        EntityState(
            np.zeros(1, np.int64),
            SortedLog.from_values(
                [b""], plan.entities[1].event_record, np.zeros(0, plan.entities[1].event_record), np.zeros(0, np.int64)
            ),
            SortedLog.from_values([b""], LABEL_RECORD, np.zeros(0, LABEL_RECORD), np.zeros(0, np.int64)),
        ),
    ]
    # The windows of an event just after 1970 reach back before it.
    assert feature_vectors(plan, events, states)[0, 1:5].tolist() == [1.0, 1.0, 0.0, 0.0]
