"""Fields of many rows are the bytes that the messages would have."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headrace.platform import wire_format as wire
from headrace.v1.prediction_pb2 import Prediction

Int64 = st.integers(-(2**63), 2**63 - 1)
Text = st.text(max_size=200)


@given(st.lists(Int64, max_size=40))
def test_numbers_are_encoded_together_as_alone(numbers: list[int]) -> None:
    assert wire.varints(np.array(numbers, np.int64)) == [wire.varint(number) for number in numbers]
    expected = [Prediction(event_time_us=number).SerializeToString() for number in numbers]
    assert wire.numbers(3, np.array(numbers, np.int64)) == expected
    assert [wire.number(3, number) for number in numbers] == expected


@given(st.lists(st.floats(allow_nan=False)))
def test_doubles_leave_out_zero_alone(values: list[float]) -> None:
    expected = [Prediction(score=value).SerializeToString() for value in values]
    assert wire.doubles(5, np.array(values, np.float64)) == expected


@given(st.integers(0, 5), st.integers(0, 5), st.data())
def test_rows_of_doubles_are_packed(count: int, width: int, data: st.DataObject) -> None:
    rows = [data.draw(st.lists(st.floats(allow_nan=False), min_size=width, max_size=width)) for _ in range(count)]
    expected = [Prediction(features=row).SerializeToString() for row in rows]
    assert wire.packed_doubles(13, np.array(rows, np.float64).reshape(count, width)) == expected


@given(st.lists(Text))
def test_texts_of_a_repeated_field_are_there_when_empty(values: list[str]) -> None:
    assert wire.texts(14, values) == [Prediction(entities=[value]).SerializeToString() for value in values]
    assert b"".join(wire.element(24, value) for value in values) == Prediction(overridden=values).SerializeToString()
    assert [wire.text(6, value) for value in values] == [
        Prediction(decision=value).SerializeToString() for value in values
    ]


@given(st.lists(Int64), st.lists(st.integers(0, 4)), st.integers(0, 2**64 - 1))
def test_packed_fields(positions: list[int], degradations: list[int], fingerprint: int) -> None:
    assert wire.packed_sint64(15, positions) == Prediction(event_positions=positions).SerializeToString()
    assert (
        wire.packed_enums(11, degradations) == Prediction(degradations=degradations).SerializeToString()  # type: ignore[arg-type]
    )
    assert wire.fixed64(12, fingerprint) == Prediction(features_fingerprint=fingerprint).SerializeToString()
