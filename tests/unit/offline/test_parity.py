"""What is served is compared feature by feature, and what cannot be compared is counted."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from headrace.offline.errors import TableError
from headrace.offline.parity import compare_vectors
from headrace.offline.parquet_file import ParquetFile
from headrace.offline.served_parity import NOT_IN_EVENTS, OUT_OF_REACH, measure, measure_against
from headrace.offline.served_vectors import LATE, ServedVectors, read_file
from headrace.offline.topic_histories import TopicEvents, TopicLabels
from headrace.pipeline import (
    DAY,
    HOUR,
    Entity,
    EventColumns,
    EventSchema,
    FeatureView,
    Label,
    Model,
    Number,
    OnDemand,
    Pipeline,
    Text,
    count,
    decayed_count,
)
from headrace.pipeline.recompute import recompute
from headrace.pipeline.state import compile_plan
from tests.unit.offline.pipelines import small
from tests.unit.offline.random_history import PARTITIONS, random_history, random_positions


def first(events: EventColumns) -> np.ndarray:
    return events.numbers["n"]


TWO = Pipeline(
    "two",
    event=EventSchema(Text("key"), Number("n")),
    entities=[Entity("key", "key")],
    key="key",
    features=[OnDemand("a", first), OnDemand("b", first)],
    label=Label(),
    model=Model("none", lambda: None),
)
DECAYED = Pipeline(
    "decayed",
    event=EventSchema(Text("key"), Number("n")),
    entities=[Entity("key", "key")],
    key="key",
    features=[FeatureView("key", decayed_count(HOUR, window=DAY), count(DAY))],
    label=Label(),
    model=Model("none", lambda: None),
)
PLAN = compile_plan(small)


def test_differences_are_counted_by_feature() -> None:
    served = np.array([[1.0, 2.0], [1.0, 2.5], [3.0, math.nan]])
    found = compare_vectors(TWO, served, np.array([[1.0, 2.0], [1.5, 2.0], [3.0, math.nan]]))
    assert (found.rows_compared, found.rows_different, found.max_abs_error) == (3, 1, 0.5)
    assert [(one.name, one.rows_different, one.max_abs_error) for one in found.features] == [
        ("a", 1, 0.5),
        ("b", 1, 0.5),
    ]
    assert found.different.tolist() == [1]


def test_a_number_in_place_of_none_is_a_difference() -> None:
    for served, recomputed in ((math.nan, 1.0), (1.0, math.nan), (math.inf, 1.0), (1.0, math.inf)):
        found = compare_vectors(TWO, np.array([[served, 1.0]]), np.array([[recomputed, 1.0]]), tolerance=1e6)
        assert (found.rows_different, found.max_abs_error) == (1, math.inf)
    infinite = np.array([[math.inf, -math.inf]])
    assert compare_vectors(TWO, infinite, infinite).rows_different == 0


def test_a_tolerance_and_what_is_left_out() -> None:
    served, recomputed = np.array([[1.0, 2.0]]), np.array([[1.0 + 1e-12, 7.0]])
    left_out = np.array([[False, True]])
    assert compare_vectors(TWO, served, recomputed, left_out=left_out).rows_different == 1
    assert compare_vectors(TWO, served, recomputed, left_out=left_out, tolerance=1e-9).rows_different == 0
    assert compare_vectors(TWO, np.zeros((0, 2)), np.zeros((0, 2))).rows_compared == 0


def test_what_weighs_by_age_may_differ_by_a_rounding() -> None:
    served = np.array([[100.0 + 1e-11, 7.0], [100.0 + 1e-9, 7.0], [100.0, 7.0 + 1e-14]])
    found = compare_vectors(DECAYED, served, np.array([[100.0, 7.0]] * 3))
    assert found.different.tolist() == [1, 2]


class Topics:
    """What random topics hold, and vectors that were served rightly from them."""

    def __init__(self) -> None:
        random = np.random.default_rng(5)
        history = random_history(small, random, 80, span=1000)
        self.events = TopicEvents(history.events, frozenset(), Counter(), PARTITIONS, 0)
        self.labels = TopicLabels(history.labels, PARTITIONS, 0)
        _, rows = np.unique(history.events.events.ids, return_index=True)
        queries = history.events.events.take(rows)
        positions = random_positions(random, history, len(rows))
        values = recompute(PLAN, queries, positions, history.events, history.labels)
        self.served = ServedVectors(queries.ids, values, positions, np.zeros(values.shape, np.bool_), Counter())


def test_what_was_served_rightly_is_equal() -> None:
    topics = Topics()
    found = measure(PLAN, topics.served, topics.events, topics.labels)
    assert (found.parity.rows_compared, found.parity.rows_different) == (len(topics.served.ids), 0)
    assert not found.left_out


def test_a_wrong_feature_is_named_with_its_event() -> None:
    topics = Topics()
    topics.served.values[3, 2] += 0.25
    found = measure(PLAN, topics.served, topics.events, topics.labels)
    assert found.different == [topics.served.ids[3]]
    assert [(one.name, one.max_abs_error) for one in found.parity.features if one.rows_different] == [
        (small.feature_names[2], 0.25)
    ]
    topics.served.overridden[3, 2] = True
    assert measure(PLAN, topics.served, topics.events, topics.labels).parity.rows_different == 0


def test_late_unknown_and_unreachable_ones_are_counted() -> None:
    topics = Topics()
    row = topics.events.history.events.ids.index(topics.served.ids[0])
    events = replace(topics.events, late=frozenset([row]))
    served = replace(topics.served, ids=[*topics.served.ids[:-1], "unknown"])
    found = measure(PLAN, served, events, topics.labels)
    assert found.left_out == {LATE: 1, NOT_IN_EVENTS: 1}
    assert found.parity.rows_compared == len(served.ids) - 2
    later = replace(events, complete_from=1)
    assert measure(PLAN, served, later, topics.labels).left_out[OUT_OF_REACH] == len(served.ids) - 2


def test_a_file_of_vectors(tmp_path: Path) -> None:
    topics = Topics()
    positions = topics.served.positions
    assert positions.events is not None
    assert positions.outcomes is not None
    columns = {name: topics.served.values[:, at] for at, name in enumerate(small.feature_names)}
    table = pl.DataFrame({"event_id": topics.served.ids, **columns})
    table.with_columns(
        pl.Series("event_positions", positions.events.tolist()),
        pl.Series("outcome_positions", positions.outcomes.tolist()),
    ).write_parquet(tmp_path / "served.parquet")
    read = read_file(ParquetFile(tmp_path / "served.parquet"), small)
    assert measure(PLAN, read, topics.events, topics.labels).parity.rows_different == 0
    table.reverse().slice(2).write_parquet(tmp_path / "recomputed.parquet")
    found = measure_against(small, read, tmp_path / "recomputed.parquet")
    assert (found.parity.rows_compared, found.parity.rows_different) == (len(table) - 2, 0)
    assert found.left_out == {NOT_IN_EVENTS: 2}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"amount": None}, "column amount: is missing"),
        ({"amount": ["x"]}, "column amount: has the type String; allowed is a number"),
        ({"event_positions": [[1]]}, "column outcome_positions: is missing"),
        (
            {"event_positions": [[1]], "outcome_positions": [3]},
            "column outcome_positions: allowed are lists of offsets by partition",
        ),
    ],
)
def test_a_mistake_in_a_file_of_vectors_is_named(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    columns: dict[str, Any] = {"event_id": ["a"]} | {name: [1.0] for name in small.feature_names} | changed
    path = tmp_path / "served.parquet"
    pl.DataFrame({name: value for name, value in columns.items() if value is not None}).write_parquet(path)
    with pytest.raises(TableError, match=said):
        read_file(ParquetFile(path), small)
