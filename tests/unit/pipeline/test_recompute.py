"""The yardstick itself, against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from headrace.pipeline import (
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
    label_count,
    label_rate,
    mean,
)
from headrace.pipeline.recompute import EventHistory, LabelHistory, Positions, recompute
from headrace.pipeline.state import compile_plan, label_records

pipeline = Pipeline(
    "hand",
    event=EventSchema(Text("shop"), Money("cents")),
    entities=[Entity("shop", "shop")],
    key="shop",
    features=[
        FeatureView(
            "shop",
            count(10, hop=1, name="count"),
            mean("cents", 10, hop=1, name="mean"),
            count(10, delay=5, hop=1, name="before"),
            label_count(10, delay=5, hop=1, name="positives"),
            label_rate(10, delay=5, hop=1, name="rate"),
            label_rate(10, delay=5, hop=1, name="labelled_rate", over="labelled", default=-1.0),
        )
    ],
    label=Label(),
    model=Model("none", lambda: None),
)
plan = compile_plan(pipeline)


def columns(*rows: tuple[str, int, int]) -> EventColumns:
    """Events of one shop: id, time, cents."""
    return EventColumns.from_rows(
        pipeline.event, [row[0] for row in rows], [row[1] for row in rows], [["s"]] * len(rows), [[r[2]] for r in rows]
    )


def history(*rows: tuple[str, int, int], partitions: list[int] | None = None) -> EventHistory:
    return EventHistory(
        columns(*rows), np.array(partitions or [0] * len(rows), np.int64), np.arange(len(rows), dtype=np.int64)
    )


def labels(*rows: tuple[str, int, int, float, float]) -> LabelHistory:
    """Labels of events of the shop: id, event time, label time, value, previous."""
    return LabelHistory(
        [row[0] for row in rows],
        [["s"] * len(rows)],
        np.array([row[1] for row in rows], np.int64),
        np.array([row[2] for row in rows], np.int64),
        np.array([row[3] for row in rows]),
        np.array([row[4] for row in rows]),
        np.zeros(len(rows), np.int64),
        np.arange(len(rows), dtype=np.int64),
    )


def vector(query: tuple[str, int, int], past: EventHistory, known: LabelHistory, *positions: int) -> dict[str, float]:
    at = Positions(
        None if not positions else np.array([positions[:1]]), None if len(positions) < 2 else np.array([positions[1:]])
    )
    values = recompute(plan, columns(query), at, past, known)[0]
    return dict(zip(pipeline.feature_names, values.tolist(), strict=True))


def test_windows_leave_out_their_trailing_edge_and_take_in_the_event_itself() -> None:
    past = history(("a", 90, 100), ("b", 91, 200), ("c", 99, 300), ("d", 100, 900), ("e", 101, 900))
    found = vector(("q", 100, 600), past, labels())
    # b, c and q; a lies at t - W, d at t itself, e behind it. The mean is in units, 100 cents each.
    assert (found["shop_count"], found["shop_mean"]) == (3, 1100 / 300)
    # Behind the delay of 5: (85, 95].
    assert found["shop_before"] == 2


def test_a_label_counts_when_its_time_has_come() -> None:
    past = history(("a", 90, 100), ("b", 91, 100), ("c", 92, 100))
    known = labels(("a", 90, 97, 1, math.nan), ("b", 91, 100, 0, math.nan), ("c", 92, 101, 1, math.nan))
    found = vector(("q", 100, 100), past, known)
    assert found["shop_positives"] == 1
    assert found["shop_rate"] == pytest.approx(1 / 3)
    assert found["shop_labelled_rate"] == 1 / 2
    later = vector(("q", 101, 100), past, known)
    assert (later["shop_positives"], later["shop_labelled_rate"]) == (2, 2 / 3)


def test_a_correction_takes_the_first_label_back() -> None:
    past = history(("a", 90, 100), ("b", 91, 100))
    known = labels(("a", 90, 92, 1, math.nan), ("b", 91, 92, 0, math.nan), ("a", 90, 98, 0, 1), ("b", 91, 99, 1, 0))
    assert vector(("q", 97, 1), past, known)["shop_positives"] == 1
    assert vector(("q", 98, 1), past, known)["shop_positives"] == 0
    assert vector(("q", 99, 1), past, known)["shop_positives"] == 1
    assert vector(("q", 99, 1), past, known)["shop_labelled_rate"] == 1 / 2


def test_only_what_was_merged_counts() -> None:
    past = history(("a", 90, 100), ("b", 91, 100), ("c", 92, 100))
    known = labels(("a", 90, 92, 1, math.nan), ("b", 91, 92, 1, math.nan))
    for merged in range(-1, 3):
        for learned in range(-1, 2):
            found = vector(("q", 99, 1), past, known, merged, learned)
            assert found["shop_before"] == merged + 1
            assert found["shop_positives"] == learned + 1


def test_an_empty_window_has_the_declared_default() -> None:
    found = vector(("q", 99, 250), history(), labels())
    assert found == {
        "shop_count": 1,
        "shop_mean": 2.5,
        "shop_before": 0,
        "shop_positives": 0,
        "shop_rate": 0,
        "shop_labelled_rate": -1,
    }


def test_an_id_counts_once_however_often_it_was_merged() -> None:
    past = history(("a", 90, 100), ("a", 90, 100), ("b", 91, 100), ("a", 90, 100))
    assert [vector(("q", 99, 1), past, labels(), merged)["shop_before"] for merged in range(-1, 4)] == [0, 1, 1, 2, 2]
    # The event itself, sent twice, is not its own past.
    assert vector(("a", 90, 100), past, labels())["shop_count"] == 1


def test_a_copy_counts_when_only_it_was_merged() -> None:
    past = history(("a", 90, 100), ("a", 90, 100), partitions=[0, 1])
    queries = columns(*[("q", 99, 1)] * 4)
    at = Positions(np.array([[-1, -1], [0, -1], [-1, 1], [0, 1]]))
    found = recompute(plan, queries, at, past, labels())[:, pipeline.feature_names.index("shop_before")]
    assert found.tolist() == [0, 1, 1, 1]


def test_what_an_outcome_adds_to_the_label_log() -> None:
    nan = math.nan
    records = label_records(
        ["a"] * 6,
        np.zeros(6, np.int64),
        np.zeros(6, np.int64),
        np.array([1.0, 0.0, 1.0, 0.0, 1.0, 0.0]),
        np.array([nan, nan, 0.0, 1.0, 1.0, 0.0]),
    )
    assert records["labelled"].tolist() == [1, 1, 0, 0, 0, 0]
    assert records["positive"].tolist() == [1, 0, 1, -1, 0, 0]
