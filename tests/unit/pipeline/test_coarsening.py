"""Merged records of a log, and what a reader that knows nothing of them sees."""

from __future__ import annotations

import math

import numpy as np

from headrace.pipeline import (
    HOUR,
    MINUTE,
    Entity,
    EventColumns,
    EventSchema,
    FeatureView,
    Label,
    Model,
    Money,
    Pipeline,
    Text,
    count,
    distinct,
    label_count,
    maximum,
)
from headrace.pipeline.coarse_sections import read_header, read_section
from headrace.pipeline.coarsening import coarsen, coarsen_labels
from headrace.pipeline.events import hash_ids
from headrace.pipeline.state import HEADER_TIME, LABEL_RECORD, compile_plan, label_records

START = 1_000_000 * HOUR
pipeline = Pipeline(
    "coarse",
    event=EventSchema(Text("shop"), Text("page"), Money("cents", maximum=1000)),
    entities=[Entity("shop", "shop")],
    key="shop",
    features=[
        FeatureView(
            "shop",
            count(10 * HOUR, hop=HOUR),
            maximum("cents", 20 * HOUR, hop=2 * HOUR),
            distinct("page", HOUR, hop=HOUR),
            label_count(HOUR, delay=HOUR, hop=HOUR),
        )
    ],
    label=Label(),
    model=Model("none", lambda: None),
    lateness=HOUR,
)
plan = compile_plan(pipeline).entities[0]


def stored(minutes: range) -> bytes:
    """A log with one event in each of these minutes."""
    size = len(minutes)
    events = EventColumns(
        [f"e{minute}" for minute in minutes],
        START + np.array(minutes, np.int64) * MINUTE,
        {"shop": ["s"] * size, "page": [f"p{minute % 3}" for minute in minutes]},
        {"cents": (np.arange(size) % 7 * 100).astype(np.float64)},
    )
    return plan.event_records(events, hash_ids(events.ids)).tobytes()


def test_whole_buckets_behind_the_horizon_are_merged() -> None:
    value = stored(range(300))
    merged = coarsen(plan, value, START + 150 * MINUTE)
    assert len(merged) < len(value)
    assert plan.coarse is not None
    buckets, cells = plan.coarse.decode(read_section(merged, plan.event_record))
    assert buckets["time"].tolist() == [START, START + HOUR]
    assert buckets["0.0"].tolist() == [60, 60]
    assert [len(of) for of in cells.values()] == [6]
    # Whoever takes the log for plain records sees the events that were not merged.
    records = np.frombuffer(merged, plan.event_record)
    raw = records[records["time"] != HEADER_TIME]
    assert raw["time"].tolist() == [START + minute * MINUTE for minute in range(120, 300)]


def test_the_newest_event_stays_as_it_is() -> None:
    merged = coarsen(plan, stored(range(100)), START + 500 * HOUR)
    records = np.frombuffer(merged, plan.event_record)
    assert records["time"][records["time"] != HEADER_TIME].tolist() == [START + 99 * MINUTE]
    assert coarsen(plan, merged, START + 500 * HOUR) is merged


def test_what_is_merged_grows_and_leaves() -> None:
    merged = coarsen(plan, stored(range(300)), START + 2 * HOUR)
    assert read_header(merged)[0] == 1  # type: ignore[index]
    late = np.frombuffer(stored(range(1000))[: 20 * plan.event_record.itemsize], plan.event_record).copy()
    late["id"] += np.uint64(1)
    again = coarsen(plan, merged + late.tobytes(), START + 4 * HOUR)
    assert plan.coarse is not None
    buckets, _ = plan.coarse.decode(read_section(again, plan.event_record))
    assert buckets["0.0"].tolist() == [80, 60, 60, 60]
    assert read_header(again)[0] == 2  # type: ignore[index]
    left = coarsen(plan, again, START + 4 * HOUR, START + 2 * HOUR - 1)
    buckets, _ = plan.coarse.decode(read_section(left, plan.event_record))
    assert buckets["time"].tolist() == [START + 2 * HOUR, START + 3 * HOUR]
    assert len(coarsen(plan, left, START + 40 * HOUR, START + 39 * HOUR)) == plan.event_record.itemsize


def test_a_log_of_few_events_stays_as_it_is() -> None:
    value = stored(range(0, 300, 60))
    assert coarsen(plan, value, START + 10 * HOUR) is value
    assert coarsen(plan, b"", START) == b""
    assert coarsen_labels(plan, b"", START) == b""


def test_labels_that_are_known_at_the_horizon_are_merged() -> None:
    minutes = np.arange(120)
    times = START + minutes * MINUTE
    known = np.where(minutes == 7, START + 100 * HOUR, times + HOUR)
    labels = label_records(
        [str(minute) for minute in minutes], times, known, (minutes % 2).astype(float), np.full(120, math.nan)
    )
    merged = np.frombuffer(coarsen_labels(plan, labels.tobytes(), START + 3 * HOUR), LABEL_RECORD)
    assert merged["time"].tolist() == [
        HEADER_TIME,
        START,
        START + HOUR,
        START + 7 * MINUTE,
        START + 119 * MINUTE,
    ]
    assert merged["labelled"][1:].tolist() == [59, 59, 1, 1]
    assert merged["positive"][1:].tolist() == [29, 29, 1, 1]
    assert merged["known"][1] == START + 59 * MINUTE + HOUR
