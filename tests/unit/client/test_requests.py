"""Plain values as requests: by names, packed, in columns."""

from __future__ import annotations

import datetime as dt
import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.client import Deadline, EventInput, InvalidInputError, Schema
from headrace.client.calls import CallBuilder, shape_of
from headrace.client.requests import CallOptions, batch_request, microseconds, predict_options
from headrace.gateway.pipeline_description import describe
from headrace.pipeline.schema import Boolean, EventSchema, Integer, Number, Text
from headrace.platform.event_codec import check_event
from headrace.platform.pipelines import load_pipeline
from headrace.v1.prediction_service_pb2 import DescribePipelineResponse, EventField, PredictOptions

FRAUD = load_pipeline("pipelines/fraud.py")
SCHEMA = Schema.of(FRAUD)
FIELDS: dict[str, Any] = {"customer_id": "c1", "terminal_id": "t1", "amount_cents": 1299}


def test_a_packed_event_is_the_same_event_to_the_gateway() -> None:
    made = EventInput("e1", 1_600_000_000_000_000, FIELDS)
    packed = SCHEMA.pack(made)
    assert packed.schema_fingerprint == FRAUD.schema_fingerprint
    assert check_event(FRAUD, packed) == check_event(FRAUD, made.message())
    # A message is sent as it is.
    assert SCHEMA.pack(packed) is packed


def test_the_schema_of_a_gateway_is_the_schema_of_the_declaration() -> None:
    described = Schema.described(describe(FRAUD, "fraud-test"))
    assert described.event.describe() == SCHEMA.event.describe()
    assert described.fingerprint == SCHEMA.fingerprint
    assert (described.pipeline, described.feature_names) == ("fraud-test", FRAUD.feature_names)
    unknown = DescribePipelineResponse(fields=[EventField(name="a", kind=9)])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="field a is of a kind"):
        Schema.described(unknown)


@pytest.mark.parametrize(
    ("event", "field", "what"),
    [
        (EventInput("", 1, FIELDS), "event.event_id", "missing"),
        (EventInput("e", 0, FIELDS), "event.event_time_us", "missing"),
        (EventInput("e", 1, FIELDS | {"merchant": "m"}), "event.fields.merchant", "known are customer_id"),
        (EventInput("e", 1, FIELDS | {"amount_cents": "1"}), "event.fields.amount_cents", "must be a number"),
        (EventInput("e", 1, FIELDS | {"customer_id": None}), "event.fields.customer_id", "it is required"),
        (EventInput("e", dt.datetime(2020, 1, 1), FIELDS), "event_time_us", "no time zone"),
    ],
)
def test_what_the_gateway_would_refuse_is_refused_before_it_is_sent(event: EventInput, field: str, what: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        SCHEMA.pack(event)
    assert caught.value.violations[0].field == field
    assert what in caught.value.violations[0].description
    with pytest.raises(InvalidInputError, match=r"events\[1\]"):
        CallBuilder("", 1.0, SCHEMA).events_call([EventInput("ok", 1, FIELDS), event], {})


WIDE = EventSchema(
    Text("a"), Integer("b"), Number("c", optional=True), Boolean("d", optional=True), Text("e", optional=True)
)
values = st.fixed_dictionaries(
    {"a": st.text(min_size=1, max_size=9), "b": st.integers(-9, 9)},
    optional={
        "c": st.none() | st.floats(-9, 9),
        "d": st.none() | st.booleans(),
        "e": st.none() | st.text(max_size=9),
    },
)


@given(st.lists(values, min_size=1, max_size=9))
def test_columns_of_packed_events_are_the_events(rows: list[dict[str, Any]]) -> None:
    schema = Schema(WIDE, 7)
    calls = CallBuilder("fraud", 1.0, schema)
    call = calls.events_call([EventInput(f"e{i}", i + 1, row) for i, row in enumerate(rows)], {"explain": True})
    columns = {one.name: one for one in call.request.columns}
    assert call.request.options.explain
    for i, row in enumerate(rows):
        assert columns["a"].texts[i] == row["a"]
        assert columns["b"].numbers[i] == row["b"]
        assert columns["e"].texts[i] == (row.get("e") or "")
        for name in ("c", "d"):
            absent = row.get(name) is None
            assert columns[name].numbers[i] == row.get(name) or (absent and math.isnan(columns[name].numbers[i]))


def test_events_without_a_schema_go_together_only_where_their_fields_do() -> None:
    calls = CallBuilder("", 1.0, None)
    rows = [EventInput("a", 1, {"x": 1, "y": "t", "z": True}), EventInput("b", 2, {"x": 2, "y": "u", "z": False})]
    columns = {one.name: one for one in calls.events_call(rows, {}).request.columns}
    assert list(columns["x"].numbers) == [1.0, 2.0]
    assert list(columns["y"].texts) == ["t", "u"]
    assert list(columns["z"].numbers) == [1.0, 0.0]
    with pytest.raises(InvalidInputError, match=r"events\[1\]: has other fields"):
        calls.events_call([rows[0], EventInput("c", 3, {"x": "text", "y": "t", "z": True})], {})
    with pytest.raises(InvalidInputError, match="0 events; allowed are 1 to 4096"):
        calls.events_call([], {})
    assert shape_of(calls.event(rows[0])) == shape_of(calls.event(rows[1]))


def test_columns_are_lists_or_arrays() -> None:
    columns: dict[str, Any] = {
        "whole": np.array([1, 2]),
        "absent": [None, 2.5],
        "text": ["a", None],
        "flags": np.array([True, False]),
        "texts": np.array(["a", "b"]),
    }
    request = batch_request("fraud", ["a", "b"], np.array([1, 2]), columns, PredictOptions())
    made = {one.name: one for one in request.columns}
    assert list(made["whole"].numbers) == [1.0, 2.0]
    assert math.isnan(made["absent"].numbers[0])
    assert list(made["text"].texts) == ["a", ""]
    assert list(made["flags"].numbers) == [1.0, 0.0]
    assert list(made["texts"].texts) == ["a", "b"]
    assert list(request.event_times_us) == [1, 2]
    with pytest.raises(InvalidInputError, match="mixes text and numbers"):
        batch_request("", ["a", "b"], [1, 2], {"x": ["a", 1]}, PredictOptions())
    with pytest.raises(InvalidInputError, match="1 values for 2 events"):
        batch_request("", ["a", "b"], [1, 2], {"x": [1]}, PredictOptions())
    with pytest.raises(InvalidInputError, match="1 times for 2 events"):
        batch_request("", ["a", "b"], [1], {}, PredictOptions())


def test_times_are_aware_or_microseconds() -> None:
    assert microseconds(dt.datetime(2020, 9, 13, 12, 26, 40, 1, dt.UTC)) == 1_600_000_000_000_001
    assert microseconds(17) == 17


def test_options_and_deadlines_are_the_callers() -> None:
    asked: CallOptions = {"ingest": True, "overrides": {"night": 1.0}, "model_version": "7", "timeout_s": 9}
    assert predict_options(asked) == PredictOptions(ingest=True, overrides={"night": 1.0}, model_version="7")
    calls = CallBuilder("", 5.0, None)
    assert calls.deadline({}).remaining() == pytest.approx(5, abs=0.5)
    assert calls.deadline({"timeout_s": 9}).remaining() == pytest.approx(9, abs=0.5)
    shared = Deadline.after(2)
    assert calls.deadline({"deadline": shared}) is shared
    assert calls.deadline({"deadline": shared, "timeout_s": 9}) is shared
    assert calls.deadline({"deadline": shared, "timeout_s": 1}).remaining() == pytest.approx(1, abs=0.5)
    assert Deadline.after(-1).remaining() == 0

    class Served:
        def __init__(self, remaining: float | None) -> None:
            self.time_remaining = lambda: remaining

    assert Deadline.of_call(Served(None)) is None
    handed_on = Deadline.of_call(Served(3.0))
    assert handed_on is not None
    assert handed_on.at == pytest.approx(time.monotonic() + 3, abs=0.5)
