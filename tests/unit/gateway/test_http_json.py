"""JSON bodies: what is right becomes the message, what is wrong names its place, and nothing else ever happens."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from headrace.gateway.errors import InvalidRequestError
from headrace.gateway.http_json import MAX_DEPTH, batch_of, message_of, parse_object, to_json
from headrace.gateway.request_messages import checked_batch
from headrace.platform.pipelines import load_pipeline
from headrace.v1.prediction_pb2 import DEGRADATION_FEATURES_DEFAULTED, ROUTE_CANARY
from headrace.v1.prediction_service_pb2 import GetFeaturesRequest, PredictBatchRequest, PredictRequest, PredictResponse

pipeline = load_pipeline("pipelines/fraud.py")
clicks = load_pipeline("pipelines/clicks.py")


def event(name: str = "a", **fields: Any) -> dict[str, Any]:
    given_fields = {"customer_id": "c", "terminal_id": "t", "amount_cents": 1200} | fields
    return {"event_id": name, "event_time_us": 1_600_000_000_000_000, "fields": given_fields}


def wrong(body: bytes, kind: type[PredictRequest] = PredictRequest) -> tuple[str, str]:
    with pytest.raises(InvalidRequestError) as caught:
        message_of(parse_object(body), kind())
    (one,) = caught.value.violations
    return one.field, one.description


def test_names_as_declared_and_in_camel_case_and_times_as_text_or_number() -> None:
    one = message_of(parse_object(json.dumps({"event": event()}).encode()), PredictRequest())
    other = message_of(
        {"event": {"eventId": "a", "eventTimeUs": "1600000000000000", "fields": event()["fields"]}}, PredictRequest()
    )
    assert one == other
    assert one.event.fields["amount_cents"] == 1200


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not JSON"),
        (b"[]", "must be a JSON object"),
        (b'{"event": {}', "line 1, column"),
        (b"\xff{}", "not UTF-8"),
        (b'{"a": 1, "a": 2}', "'a' comes twice"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"a": -Infinity}', "-Infinity is not JSON"),
        (b"[" * 200_000, "nested deeper"),
        (b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1), "nested deeper"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "too long"),
    ],
)
def test_what_is_no_object_of_plain_json(body: bytes, says: str) -> None:
    with pytest.raises(InvalidRequestError, match=says):
        parse_object(body)


@pytest.mark.parametrize(
    ("body", "field", "says"),
    [
        ('{"evnt": {}}', "evnt", "there is no field 'evnt' here; there are pipeline, event, options"),
        ('{"event": {"id": 1}}', "event.id", "there is no field 'id' here"),
        ('{"event": 5}', "event", "must be an object"),
        ('{"event": {"event_id": 5}}', "event.event_id", "must be text"),
        ('{"event": {"event_id": "\\ud800"}}', "event.event_id", "must be text"),
        ('{"event": {"event_time_us": "noon"}}', "event.event_time_us", "must be a whole number of 64 bits"),
        ('{"event": {"event_time_us": 1e30}}', "event.event_time_us", "must be a whole number of 64 bits"),
        ('{"event": {"fields": [1]}}', "event.fields", "must be an object"),
        ('{"event": {"numbers": ["x"]}}', "event.numbers", "an array whose elements are each a number"),
        ('{"options": {"ingest": "yes"}}', "options.ingest", "must be true or false"),
        ('{"options": {"overrides": {"a": "x"}}}', "options.overrides", "whose values are each a number"),
    ],
)
def test_what_does_not_fit_the_message_names_its_place(body: str, field: str, says: str) -> None:
    at, description = wrong(body.encode())
    assert at == field
    assert says in description


def test_a_batch_of_events_is_the_batch_of_their_columns() -> None:
    rows = [event("a"), event("b", amount_cents=7, customer_id="ü")]
    by_rows = batch_of({"events": rows, "options": {"explain": True}, "pipeline": "fraud"}, pipeline)
    by_columns = batch_of(
        {
            "pipeline": "fraud",
            "event_ids": ["a", "b"],
            "event_times_us": [1_600_000_000_000_000] * 2,
            "columns": [
                {"name": "customer_id", "texts": ["c", "ü"]},
                {"name": "terminal_id", "texts": ["t", "t"]},
                {"name": "amount_cents", "numbers": [1200, 7]},
            ],
            "options": {"explain": True},
        },
        pipeline,
    )
    assert by_rows == by_columns
    assert checked_batch(pipeline, by_rows).ids == ["a", "b"]


def test_optional_fields_may_be_left_out_of_events() -> None:
    fields = {field.name: "x" if field.kind == "text" else 1 for field in clicks.event.fields if not field.optional}
    row = {"event_id": "a", "event_time_us": 1, "fields": fields}
    request = batch_of({"events": [row]}, clicks)
    events = checked_batch(clicks, request)
    assert len(events) == 1
    for field in clicks.event.numbers:
        assert math.isnan(events.numbers[field.name][0]) == (field.name not in fields)


def test_each_bad_event_of_a_batch_is_named_with_its_index() -> None:
    rows = [event("a"), event("b", amount_cents=-1), 7, event("c", colour="red"), event("")]
    with pytest.raises(InvalidRequestError) as caught:
        batch_of({"events": rows}, pipeline)
    assert [one.field for one in caught.value.violations] == [
        "events[1].fields.amount_cents",
        "events[2]",
        "events[3].fields.colour",
        "events[4].event_id",
    ]
    with pytest.raises(InvalidRequestError) as caught:
        batch_of({"events": [event("", amount_cents="x")] * 4000}, pipeline)
    assert len(caught.value.violations) == 20


@pytest.mark.parametrize("rows", [[], {}, "x", [event()] * 4097])
def test_a_batch_needs_events(rows: Any) -> None:
    with pytest.raises(InvalidRequestError, match="array of 1 to 4096"):
        batch_of({"events": rows}, pipeline)


def test_a_batch_has_one_form() -> None:
    with pytest.raises(InvalidRequestError, match="not by both"):
        batch_of({"events": [event()], "event_ids": ["a"]}, pipeline)


def test_answers_show_every_field_and_read_back_as_the_message() -> None:
    answer = PredictResponse(
        event_id="a",
        score=0.25,
        route=ROUTE_CANARY,
        features_age_ms=-1,
        features=[math.nan, 1.5],
        degradations=[DEGRADATION_FEATURES_DEFAULTED],
    )
    data = json.loads(to_json(answer))
    assert data["features_age_ms"] == "-1"
    assert data["features"] == ["NaN", 1.5]
    assert (data["route"], data["degradations"]) == ("ROUTE_CANARY", ["DEGRADATION_FEATURES_DEFAULTED"])
    assert (data["untrained"], data["decision"], data["feature_names"]) == (False, "", [])
    read = json_format.ParseDict(data, PredictResponse())
    assert to_json(read) == to_json(answer)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["event", "options", "fields", "event_id", "event_time_us", "events", "columns", "numbers"])
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(["event", "options", "events", "event_ids", "columns"]), JSON_VALUES))
def test_any_json_becomes_a_message_or_is_refused(value: dict[str, Any]) -> None:
    body = json.dumps(value).encode()
    for kind in (PredictRequest, GetFeaturesRequest, PredictBatchRequest):
        with suppress(InvalidRequestError):
            message_of(parse_object(body), kind())
    with suppress(InvalidRequestError):
        batch_of(parse_object(body), pipeline)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_refused(body: bytes) -> None:
    with suppress(InvalidRequestError):
        assert isinstance(parse_object(body), dict)
