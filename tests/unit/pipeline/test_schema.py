from __future__ import annotations

import math

import pytest

from headrace.pipeline import Boolean, DefinitionError, EventError, EventSchema, Integer, Money, Number, Text
from headrace.pipeline.schema import Field, check_identity


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([Text("a b")], "event field 'a b': a name must be an identifier"),
        ([Text("a"), Number("a")], "event field 'a' is declared twice"),
        ([Integer("a", minimum=3, maximum=2)], "event field 'a': minimum 3 > maximum 2"),
        ([Number("a", scale=0)], "event field 'a': scale 0 must be at least 1"),
        ([Money("a", minor_units=0)], "event field 'a': scale 0 must be at least 1"),
    ],
)
def test_a_wrong_schema_is_named(fields: list[Field], message: str) -> None:
    with pytest.raises(DefinitionError) as raised:
        EventSchema(*fields)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("field", "value", "stored"),
    [
        (Integer("n"), 7, 7.0),
        (Integer("n"), 7.0, 7.0),
        (Integer("n"), 2**53, 2.0**53),
        (Integer("n", optional=True), math.nan, math.nan),
        (Money("n"), 0, 0.0),
        (Number("n"), -1.5, -1.5),
        (Number("n", minimum=-math.inf), -1e300, -1e300),
        (Boolean("n"), True, 1.0),
        (Boolean("n"), 0.0, 0.0),
        (Boolean("n", optional=True), math.nan, math.nan),
    ],
)
def test_numbers_that_are_allowed(field: Field, value: object, stored: float) -> None:
    found = field.check_number(value)
    assert found == stored or math.isnan(found) == math.isnan(stored)


@pytest.mark.parametrize(
    ("field", "value", "reason", "detail"),
    [
        (Integer("n"), 7.5, "wrong_type", "n is 7.5; it must be a whole number"),
        (Integer("n"), "7", "wrong_type", "n is '7'; it must be a number"),
        (Integer("n"), True, "wrong_type", "n is True; it must be a number"),
        (Integer("n"), None, "wrong_type", "n is None; it must be a number"),
        (Integer("n"), [1] * 50, "wrong_type", "n is [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, ...; it must be a number"),
        (Integer("n"), math.nan, "missing_field", "n is NaN or missing; a number is required"),
        (Integer("n", maximum=9), 10, "out_of_range", f"n is 10; allowed is {-(2**53)} to 9"),
        (Money("n"), -1, "out_of_range", "n is -1; allowed is 0 to 1099511627776"),
        (Number("n", minimum=0.5), 0.25, "out_of_range", f"n is 0.25; allowed is 0.5 to {2**53}"),
        (Number("n"), math.inf, "out_of_range", f"n is inf; allowed is {-(2**53)} to {2**53}"),
        (Number("n", maximum=math.inf), math.inf, "out_of_range", "n is infinite; it must be finite"),
        (Boolean("n"), 2, "wrong_type", "n is 2; it must be true or false"),
        (Boolean("n"), math.nan, "wrong_type", "n is nan; it must be true or false"),
        (Boolean("n"), "true", "wrong_type", "n is 'true'; it must be true or false"),
    ],
)
def test_numbers_that_are_not(field: Field, value: object, reason: str, detail: str) -> None:
    with pytest.raises(EventError) as raised:
        field.check_number(value)
    assert (raised.value.reason, raised.value.field, raised.value.detail) == (reason, "n", detail)


def test_text_is_bounded_in_bytes() -> None:
    assert Text("t", max_bytes=4).check_text("éé") == "éé"
    assert Text("t", optional=True).check_text("") == ""
    with pytest.raises(EventError, match="t has 6 bytes; at most 4 fit"):
        Text("t", max_bytes=4).check_text("ééé")
    with pytest.raises(EventError, match="t is missing; it is required text"):
        Text("t").check_text("")
    with pytest.raises(EventError, match="t is 5; it must be text"):
        Text("t").check_text(5)


def test_packed_values_are_in_schema_order() -> None:
    schema = EventSchema(Number("b"), Text("z"), Integer("a", optional=True), Text("y", optional=True))
    texts, numbers = schema.pack({"z": "zz", "b": 2})
    assert texts == ["zz", ""]
    assert numbers[0] == 2
    assert math.isnan(numbers[1])
    schema.check(texts, numbers)
    with pytest.raises(EventError, match="1 texts and 2 numbers; the schema has 2 and 2"):
        schema.check(["zz"], numbers)


@pytest.mark.parametrize(
    ("event_id", "time", "field"),
    [("", 5, "event_id"), ("x" * 129, 5, "event_id"), ("x", 0, "event_time_us"), ("x", -1, "event_time_us")],
)
def test_an_event_needs_an_id_and_a_time(event_id: str, time: int, field: str) -> None:
    with pytest.raises(EventError) as raised:
        check_identity(event_id, time)
    assert raised.value.field == field


def test_event_times_end_with_the_year_2199() -> None:
    check_identity("x", 7_258_118_399_999_999)
    with pytest.raises(EventError, match="allowed are the years 1970 to 2200 in microseconds"):
        check_identity("x", 7_258_118_400_000_000)
