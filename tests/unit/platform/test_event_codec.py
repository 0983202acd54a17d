from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from google.protobuf.json_format import MessageToJson

from headrace.pipeline import (
    Boolean,
    Entity,
    EventError,
    EventSchema,
    FeatureView,
    Integer,
    Label,
    Model,
    Number,
    Pipeline,
    Text,
    count,
)
from headrace.pipeline.schema import Field
from headrace.platform.event_codec import (
    CheckedEvent,
    check_event,
    entity_ids,
    event_columns,
    is_json,
    pack_event,
    parse,
)
from headrace.v1.event_pb2 import Event
from headrace.v1.prediction_pb2 import Outcome

pipeline = Pipeline(
    "codec",
    event=EventSchema(
        Integer("count"),
        Text("shop"),
        Number("weight", optional=True),
        Text("note", optional=True),
        Boolean("online", optional=True),
        Text("person"),
    ),
    entities=[Entity("person", "person"), Entity("shop", "shop")],
    key="person",
    features=[FeatureView("person", count(60_000_000))],
    label=Label(),
    model=Model("none", lambda: None),
)


def named(**fields: Any) -> Event:
    event = Event(event_id="e", event_time_us=5)
    values: dict[str, Any] = {"count": 3, "shop": "s", "person": "p"}
    event.fields.update(values | fields)
    return event


def test_named_fields_are_packed_in_schema_order() -> None:
    checked = check_event(pipeline, named(weight=1.5, note="n", online=True))
    assert (checked.event_id, checked.time_us, checked.answered) == ("e", 5, False)
    assert list(checked.texts) == ["s", "n", "p"]
    assert list(checked.numbers) == [3.0, 1.5, 1.0]
    assert entity_ids(pipeline, checked) == ["p", "s"]


def test_what_is_optional_may_be_absent_or_null() -> None:
    for event in (named(), named(weight=None, note=None, online=None)):
        checked = check_event(pipeline, event)
        assert list(checked.texts) == ["s", "", "p"]
        assert checked.numbers[0] == 3
        assert math.isnan(checked.numbers[1])
        assert math.isnan(checked.numbers[2])


def test_packing_and_checking_are_inverse() -> None:
    checked = CheckedEvent("e", 5, ["s", "", "p"], [3.0, 1.25, 0.0], answered=True)
    packed = pack_event(pipeline, checked)
    assert packed.schema_fingerprint == pipeline.schema_fingerprint
    assert check_event(pipeline, Event.FromString(packed.SerializeToString())) == checked


@pytest.mark.parametrize(
    ("fields", "reason", "field"),
    [
        ({"weight": math.inf}, "out_of_range", "weight"),
        ({"online": 2}, "wrong_type", "online"),
        ({"online": "yes"}, "wrong_type", "online"),
        ({"count": 2.0**60}, "out_of_range", "count"),
        ({"note": "n" * 129}, "out_of_range", "note"),
        ({"other": 1}, "unknown_field", "other"),
        ({"shop": None}, "missing_field", "shop"),
        ({"shop": [1]}, "wrong_type", "shop"),
    ],
)
def test_an_error_names_the_field(fields: dict[str, object], reason: str, field: str) -> None:
    with pytest.raises(EventError) as raised:
        check_event(pipeline, named(**fields))
    assert (raised.value.reason, raised.value.field) == (reason, field)
    assert field in raised.value.detail


def test_columns_are_by_name() -> None:
    events = [CheckedEvent(f"e{i}", i, ["s", "", f"p{i}"], [i, math.nan, 1.0], answered=False) for i in range(3)]
    columns = event_columns(pipeline, events)
    assert list(columns.ids) == ["e0", "e1", "e2"]
    assert columns.times.tolist() == [0, 1, 2]
    assert columns.texts["person"] == ["p0", "p1", "p2"]
    np.testing.assert_array_equal(columns.numbers["count"], [0, 1, 2])
    assert np.isnan(columns.numbers["weight"]).all()
    assert len(event_columns(pipeline, [])) == 0


@pytest.mark.parametrize(
    ("headers", "answer"),
    [
        ([], False),
        ([("content-type", b"application/json")], True),
        ([("Content-Type", b"Application/JSON; charset=utf-8")], True),
        ([("other", b"x"), ("content-type", b" application/json ")], True),
        ([("content-type", b"application/x-protobuf")], False),
        ([("content-type", None)], False),
        ([("content", b"application/json")], False),
    ],
)
def test_the_header_says_whether_it_is_json(headers: list[tuple[str, bytes | None]], answer: bool) -> None:
    assert is_json(headers) is answer


def test_both_forms_parse_to_the_same_message() -> None:
    event = named(note="é")
    assert parse(event.SerializeToString(), False, Event()) == event
    assert parse(MessageToJson(event).encode(), True, Event()) == event


def test_an_undecodable_value_names_the_message_that_is_expected() -> None:
    with pytest.raises(EventError, match="the value is no protobuf Outcome: "):
        parse(b"\xff", False, Outcome())
    with pytest.raises(EventError, match="the value is no JSON Event: "):
        parse(b"{", True, Event())


def test_events_of_an_earlier_schema_lack_the_optional_fields_that_were_added() -> None:
    def declared(*added: Field) -> Pipeline:
        return Pipeline(
            "codec",
            event=EventSchema(Text("person"), Integer("count"), *added),
            entities=[Entity("person", "person")],
            key="person",
            features=[FeatureView("person", count(60_000_000))],
            label=Label(),
            model=Model("none", lambda: None),
        )

    earlier, later = declared(), declared(Number("weight", optional=True), Text("note", optional=True))
    assert earlier.features_fingerprint == later.features_fingerprint
    packed = pack_event(earlier, CheckedEvent("e", 5, ["p"], [3.0], False))
    found = check_event(later, packed)
    assert found.texts == ["p", ""]
    assert found.numbers[0] == 3
    assert math.isnan(found.numbers[1])
    packed.numbers.append(1.0)
    with pytest.raises(EventError, match="3 numbers"):
        check_event(later, packed)
    with pytest.raises(EventError, match="this pipeline has"):
        check_event(earlier, pack_event(later, found))
