"""Tables of every kind become the same events, and the answers a table of that kind."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.client import InvalidInputError, Schema, Violation
from headrace.client.frames import FrameEvents, answer_columns, frame_events
from headrace.client.schema import first_wrong, problem
from headrace.client.tables import table
from headrace.client.violations import rows_blamed
from headrace.pipeline.schema import Boolean, EventSchema, Field, Integer, Number, Text
from headrace.v1.prediction_service_pb2 import PredictBatchResponse, PredictOptions

SCHEMA = Schema(
    EventSchema(
        Text("customer"),
        Integer("cents", minimum=0, maximum=10_000),
        Number("ratio", optional=True),
        Boolean("online", optional=True),
        Text("note", optional=True, max_bytes=5),
    ),
    fingerprint=7,
)
NOON = dt.datetime(2020, 9, 13, 12, 26, 40, tzinfo=dt.UTC)
NOON_US = 1_600_000_000_000_000

COLUMNS: dict[str, list[Any]] = {
    "event_id": ["a", "b", "c"],
    "event_time": [NOON, NOON + dt.timedelta(microseconds=1), NOON],
    "customer": ["c1", "c2", "c3"],
    "cents": [1, 2, 3],
    "ratio": [0.5, None, 2.0],
    "online": [True, None, False],
    "note": ["x", None, ""],
    "unused": [object(), None, None],
}
Make = Callable[[dict[str, list[Any]]], Any]


def by_pandas(columns: dict[str, list[Any]]) -> Any:
    return pd.DataFrame(columns, index=[7, 8, 9][: len(columns["event_id"])])


def by_pandas_nullable(columns: dict[str, list[Any]]) -> Any:
    return by_pandas(columns).convert_dtypes()


def by_polars(columns: dict[str, list[Any]]) -> Any:
    return pl.DataFrame({name: values for name, values in columns.items() if name != "unused"}, strict=False)


def by_arrays(columns: dict[str, list[Any]]) -> Any:
    return columns


kinds = pytest.mark.parametrize("make", [by_pandas, by_pandas_nullable, by_polars, by_arrays])


def events(frame: Any, **asked: Any) -> FrameEvents:
    settings: dict[str, Any] = {
        "id_column": "event_id",
        "time_column": "event_time",
        "columns": {},
        "assume_utc": False,
    }
    return frame_events(table(frame), SCHEMA, **(settings | asked))


@kinds
def test_a_table_becomes_events(make: Make) -> None:
    found = events(make(COLUMNS))
    assert list(found.event_ids) == ["a", "b", "c"]
    assert found.times_us.tolist() == [NOON_US, NOON_US + 1, NOON_US]
    requests = list(found.requests("fraud", PredictOptions(explain=True), 2))
    assert [list(one.event_ids) for one in requests] == [["a", "b"], ["c"]]
    columns = {one.name: one for one in requests[0].columns}
    assert list(columns["customer"].texts) == ["c1", "c2"]
    assert list(columns["cents"].numbers) == [1.0, 2.0]
    assert columns["ratio"].numbers[0] == 0.5
    assert math.isnan(columns["ratio"].numbers[1])
    assert columns["online"].numbers[0] == 1.0
    assert math.isnan(columns["online"].numbers[1])
    assert list(columns["note"].texts) == ["x", ""]
    assert requests[0].options.explain


@kinds
@pytest.mark.parametrize(
    ("column", "values", "where", "what"),
    [
        ("event_id", ["a", None, "c"], "column event_id, row 1", "missing"),
        ("event_id", ["a", "b", "x" * 129], "column event_id, row 2", "at most 128"),
        ("event_time", [NOON, NOON, None], "column event_time, row 2", "missing"),
        ("customer", ["a", None, "c"], "column customer, row 1", "required text"),
        ("customer", [1, 2, 3], "column customer, row 0", "customer is 1; it must be text"),
        ("cents", [1, 2, 10_001], "column cents, row 2", "cents is 10001; allowed is 0 to 10000"),
        ("cents", [1.0, 2.5, 3.0], "column cents, row 1", "cents is 2.5; it must be a whole number"),
        ("cents", [1, None, 3], "column cents, row 1", "required"),
        ("cents", ["1", "2", "3"], "column cents, row 0", "cents is '1'; it must be a number"),
        ("online", [1.0, 2.0, 0.0], "column online, row 1", "must be true or false"),
        ("note", ["", "", "sixsix"], "column note, row 2", "at most 5 fit"),
    ],
)
def test_what_is_wrong_is_named_with_its_column_and_row(
    make: Make, column: str, values: list[Any], where: str, what: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        events(make(COLUMNS | {column: values}))
    assert caught.value.violations[0].field == where
    assert what in caught.value.violations[0].description


@kinds
def test_columns_may_be_missing_have_other_names_or_none_at_all(make: Make) -> None:
    few = {name: COLUMNS[name] for name in ("event_id", "event_time", "customer")}
    with pytest.raises(InvalidInputError, match="column cents: there is no such column; cents is required"):
        events(make(few))
    found = events(make(few | {"amount": [1, 2, 3]}), columns={"cents": "amount"})
    assert set(found.columns) == {"customer", "cents"}
    with pytest.raises(InvalidInputError, match="nonsense is not a field of this pipeline; known are customer, cents"):
        events(make(few), columns={"nonsense": "customer"})
    with pytest.raises(InvalidInputError, match="column id: there is no such column"):
        events(make(few), id_column="id")


@kinds
def test_times_are_datetimes_with_a_zone_or_microseconds(make: Make) -> None:
    naive = [time.replace(tzinfo=None) for time in COLUMNS["event_time"]]
    with pytest.raises(InvalidInputError, match="zone"):
        events(make(COLUMNS | {"event_time": naive}))
    assert events(make(COLUMNS | {"event_time": naive}), assume_utc=True).times_us[0] == NOON_US
    berlin = [time.astimezone(dt.timezone(dt.timedelta(hours=2))) for time in COLUMNS["event_time"]]
    assert events(make(COLUMNS | {"event_time": berlin})).times_us.tolist() == [NOON_US, NOON_US + 1, NOON_US]
    whole = [NOON_US, NOON_US + 1, NOON_US]
    assert events(make(COLUMNS | {"event_time": whole})).times_us.tolist() == whole
    with pytest.raises(InvalidInputError, match="column event_time, row 0"):
        events(make(COLUMNS | {"event_time": [-1, 1, 1]}))
    with pytest.raises(InvalidInputError, match="column event_time, row 0: the time is 'yesterday'"):
        events(make(COLUMNS | {"event_time": ["yesterday"] * 3}))


def answer(ids: list[str], version: str) -> PredictBatchResponse:
    return PredictBatchResponse(
        event_ids=ids,
        prediction_ids=[f"p{one}" for one in ids],
        scores=[0.25] * len(ids),
        decisions=["accept"] * len(ids),
        routes=[1] * len(ids),  # type: ignore[list-item]
        roles=[3] * len(ids),  # type: ignore[list-item]
        model_versions=[version],
        model_version_index=[0] * len(ids),
        untrained=[False] * len(ids),
        degradations=[1, 4],  # type: ignore[list-item]
        features_age_ms=12,
        features=[float(i) for i in range(2 * len(ids))],
        feature_names=["amount", "night"],
    )


def rows_of(frame: Any) -> dict[str, list[Any]]:
    if isinstance(frame, pl.DataFrame):
        return frame.to_dict(as_series=False)
    names = frame.columns if isinstance(frame, pd.DataFrame) else frame
    return {name: list(frame[name]) for name in names}


@kinds
def test_answers_become_a_table_of_the_same_kind(make: Make) -> None:
    frame = make(COLUMNS)
    made = table(frame).answer(answer_columns("event_id", [answer(["a", "b"], "1"), answer(["c"], "2")], explain=True))
    assert type(made) is type(frame)
    rows = rows_of(made)
    assert rows["event_id"] == ["a", "b", "c"]
    assert rows["model_version"] == ["1", "1", "2"]
    assert rows["route"] == ["champion"] * 3
    assert rows["role"] == ["repeat"] * 3
    assert rows["degradations"] == ["model_in_process,idempotency_local"] * 3
    assert rows["feature_night"] == [1.0, 3.0, 1.0]
    if isinstance(made, pd.DataFrame):
        assert list(made.index) == [7, 8, 9]


@kinds
def test_an_empty_table_is_an_empty_answer(make: Make) -> None:
    frame = make({name: [] for name in COLUMNS})
    if isinstance(frame, pl.DataFrame):
        frame = frame.with_columns(pl.col("event_time").cast(pl.Datetime("us", "UTC")))
    assert list(events(frame).requests("", PredictOptions(), 10)) == []
    assert rows_of(table(frame).answer(answer_columns("event_id", [], explain=True)))["score"] == []


def test_what_is_no_table_is_refused() -> None:
    with pytest.raises(TypeError, match="a list is no table"):
        table([1])
    with pytest.raises(InvalidInputError, match="column b: 1 values; the first column has 2"):
        table({"a": [1, 2], "b": [1]})
    with pytest.raises(ValueError, match="allowed are 1 to 4096"):
        list(events(COLUMNS).requests("", PredictOptions(), 4097))


def test_the_gateways_violations_are_told_by_row() -> None:
    told = rows_blamed([Violation("events[3].fields.cents", "x"), Violation("columns.cents", "y")], 1024)
    assert told == (Violation("row 1027.fields.cents", "x"), Violation("columns.cents", "y"))


numbers = st.one_of(
    st.integers(-(2**60), 2**60), st.floats(), st.booleans(), st.sampled_from([0, 1, -1, 2**53, 2**53 + 1, 0.5])
)


@given(
    st.sampled_from([*SCHEMA.event.numbers, Integer("wide"), Number("scaled", scale=100, minimum=-3)]),
    st.one_of(
        st.lists(st.integers(-(2**60), 2**60)), st.lists(st.floats()), st.lists(st.booleans()), st.lists(numbers)
    ),
)
def test_a_column_is_checked_as_its_values_would_be(field: Field, values: list[Any]) -> None:
    array = np.array(values)
    plain = array.tolist()
    expected = next((row for row, value in enumerate(plain) if problem(field, value)), None)
    if array.dtype.kind in "biuf":
        assert first_wrong(field, array) == expected
