from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.features.decoding import DecodedPartition, decode_partition
from headrace.features.outcome_decoding import decode_outcomes
from headrace.features.time_guard import TimeGuard
from headrace.pipeline import DAY, HOUR, Pipeline
from headrace.platform.event_codec import MAX_EVENT_BYTES
from headrace.platform.pipelines import load_pipeline
from headrace.platform.rejected_records import MAX_DETAIL_CHARACTERS, MAX_KEY_BYTES, MAX_VALUE_BYTES
from headrace.v1.event_pb2 import Event, Label
from headrace.v1.prediction_pb2 import OUTCOME_KIND_EXPIRED, OUTCOME_KIND_LABELLED, Outcome, Prediction

pipeline = load_pipeline("pipelines/fraud.py")
START = 1_600_000_000_000_000
HEADERS = [("Content-Type", b"application/json; charset=utf-8")]
Headers = Sequence[tuple[str, bytes | None]]


@dataclass
class Record:
    value: bytes | None
    headers: Headers = ()
    offset: int = 5
    key: bytes | None = b"c"
    topic: str = "fraud.events"
    partition: int = 2
    timestamp: int = 1234


def packed(**changes: Any) -> bytes:
    fields: dict[str, Any] = {
        "event_id": "e",
        "event_time_us": START,
        "schema_fingerprint": pipeline.schema_fingerprint,
        "texts": ["c", "t"],
        "numbers": [100.0],
    }
    return Event(**fields | changes).SerializeToString()


def named(fields: dict[str, Any] | None = None, **changes: Any) -> bytes:
    all_fields: dict[str, Any] = {"customer_id": "c", "terminal_id": "t", "amount_cents": 100} | (fields or {})
    kept = {name: value for name, value in all_fields.items() if value is not ...}
    return json.dumps({"eventId": "e", "eventTimeUs": str(START), "fields": kept} | changes).encode()


def decode(*records: Record, guard: TimeGuard | None = None, with_pipeline: Pipeline = pipeline) -> DecodedPartition:
    return decode_partition(with_pipeline, records, guard or TimeGuard())


def test_packed_and_named_events_are_the_same() -> None:
    decoded = decode(Record(packed()), Record(named(), HEADERS))
    assert decoded.rejected == []
    first, second = decoded.accepted
    assert first.event == second.event
    assert (first.offset, first.produced_us, first.key) == (5, 1_234_000, b"c")
    assert first.guard == TimeGuard(START, 0, 1_234_000, single=True)
    assert decoded.guard == TimeGuard(START, 0, 1_234_000)


@pytest.mark.parametrize(
    ("record", "reason", "detail"),
    [
        (Record(None), "undecodable", "the record has no value; an Event is expected"),
        (Record(b""), "undecodable", "the record has no value; an Event is expected"),
        (Record(b"\xff\xff\xff"), "undecodable", "the value is no protobuf Event: "),
        (Record(named()), "undecodable", "the value is no protobuf Event: "),
        (Record(packed(), HEADERS), "undecodable", "the value is no JSON Event: "),
        (Record(b'{"eventId": ', HEADERS), "undecodable", "the value is no JSON Event: "),
        (Record(b"\xff\xfe{", HEADERS), "undecodable", "the value is no JSON Event: "),
        (Record(b"[1]", HEADERS), "undecodable", "the value is no JSON Event: "),
        (Record(b'{"event": 1}', HEADERS), "undecodable", "the value is no JSON Event: "),
        (Record(b'{"eventId": "\\ud800"}', HEADERS), "undecodable", "the value is no JSON Event: "),
        (
            Record(b'{"fields": {"a": ' + b"[" * 500 + b"]" * 500 + b"}}", HEADERS),
            "undecodable",
            "the value is no JSON",
        ),
        (
            Record(named({"amount_cents": math.nan}), HEADERS),
            "missing_field",
            "amount_cents is NaN or missing; a number is required",
        ),
        (
            Record(named({"amount_cents": math.inf}), HEADERS),
            "out_of_range",
            "amount_cents is infinite; it must be finite",
        ),
        (
            Record(packed() + b" " * MAX_EVENT_BYTES),
            "too_large",
            f"the value has {len(packed()) + MAX_EVENT_BYTES} bytes; at most {MAX_EVENT_BYTES} are read",
        ),
        (
            Record(packed(), key=b"k" * (MAX_KEY_BYTES + 1)),
            "too_large",
            f"the key has {MAX_KEY_BYTES + 1} bytes; at most {MAX_KEY_BYTES} fit",
        ),
        (Record(packed(event_id="")), "missing_field", "event_id is missing; it is required text"),
        (Record(packed(event_id="é" * 65)), "out_of_range", "event_id has 130 bytes; at most 128 fit"),
        (
            Record(packed(event_time_us=0)),
            "missing_field",
            "event_time_us is missing; it is required, in microseconds since 1970",
        ),
        (
            Record(packed(event_time_us=-5)),
            "out_of_range",
            "event_time_us is -5; allowed are the years 1970 to 2200 in microseconds",
        ),
        (Record(packed(event_time_us=2**62)), "out_of_range", "event_time_us is 4611686018427387904; allowed are the "),
        (
            Record(packed(schema_fingerprint=7)),
            "wrong_fingerprint",
            f"schema_fingerprint is 0x7; this pipeline has {pipeline.schema_fingerprint:#x}",
        ),
        (Record(packed(texts=["c"])), "wrong_shape", "1 texts and 1 numbers; the schema has 2 and 1"),
        (Record(packed(numbers=[])), "wrong_shape", "2 texts and 0 numbers; the schema has 2 and 1"),
        (Record(packed(texts=["", "t"])), "missing_field", "customer_id is missing; it is required text"),
        (Record(packed(texts=["c" * 129, "t"])), "out_of_range", "customer_id has 129 bytes; at most 128 fit"),
        (Record(packed(numbers=[math.nan])), "missing_field", "amount_cents is NaN or missing; a number is required"),
        (Record(packed(numbers=[math.inf])), "out_of_range", "amount_cents is inf; allowed is 0 to 100000000"),
        (Record(packed(numbers=[-1.0])), "out_of_range", "amount_cents is -1; allowed is 0 to 100000000"),
        (Record(packed(numbers=[0.5])), "wrong_type", "amount_cents is 0.5; it must be a whole number"),
        (
            Record(named({"color": "red"}), HEADERS),
            "unknown_field",
            "color is not a field of this pipeline; known are customer_id, terminal_id, amount_cents",
        ),
        (Record(named({"terminal_id": ...}), HEADERS), "missing_field", "terminal_id is missing; it is required"),
        (Record(named({"amount_cents": None}), HEADERS), "missing_field", "amount_cents is missing; it is required"),
        (Record(named({"amount_cents": "100"}), HEADERS), "wrong_type", "amount_cents is '100'; it must be a number"),
        (Record(named({"amount_cents": True}), HEADERS), "wrong_type", "amount_cents is True; it must be a number"),
        (Record(named({"customer_id": 7}), HEADERS), "wrong_type", "customer_id is 7.0; it must be text"),
        (Record(named({"customer_id": ["c"]}), HEADERS), "wrong_type", "customer_id is a list; it must be a plain "),
        (
            Record(named({"customer_id": {}}), HEADERS),
            "wrong_type",
            "customer_id is a struct; it must be a plain value",
        ),
    ],
)
def test_what_cannot_be_used_is_set_aside_with_the_reason(record: Record, reason: str, detail: str) -> None:
    decoded = decode(record)
    assert len(decoded.accepted) == 0
    assert decoded.guard == TimeGuard()
    (rejected,) = decoded.rejected
    assert rejected.reason == reason
    assert rejected.detail.startswith(detail)
    assert "\n" not in rejected.detail
    assert len(rejected.detail) <= MAX_DETAIL_CHARACTERS
    assert (rejected.source.topic, rejected.source.partition, rejected.source.offset) == ("fraud.events", 2, 5)
    assert rejected.value == (record.value or b"")[:MAX_VALUE_BYTES]
    assert rejected.value_size_bytes == len(record.value or b"")
    assert rejected.key == (record.key or b"")[:MAX_KEY_BYTES]
    assert rejected.json == bool(record.headers)
    assert rejected.service == "features"
    assert rejected.rejected_time_us > START


def test_times_out_of_order_are_set_aside_with_the_reason() -> None:
    records = [
        Record(packed(event_time_us=START + days * DAY), offset=offset)
        for offset, days in enumerate([50, 50, 60, 50, 48, 13, 8, 70, 71])
    ]
    decoded = decode(*records)
    assert [(event.offset, event.late) for event in decoded.accepted] == [
        (0, False),
        (1, False),
        (3, False),
        (4, True),
        (5, True),
        (8, False),
    ]
    future = "event_time_us lies {} days ahead of its partition; more than 1 need the next event to confirm it"
    late = "event_time_us lies 42.0 days behind its partition; no window reaches back more than 38.0"
    assert [(one.source.offset, one.reason, one.detail) for one in decoded.rejected] == [
        (2, "future", future.format("10.0")),
        (6, "too_late", late),
        (7, "future", future.format("20.0")),
    ]
    assert decoded.guard == TimeGuard(START + 71 * DAY, 0, 1_234_000)


def test_a_live_clock_bounds_event_times() -> None:
    live = Pipeline(
        "live",
        event=pipeline.event,
        entities=pipeline.entities,
        key="customer",
        features=pipeline.features,
        label=pipeline.label,
        model=pipeline.model,
        clock="live",
    )
    decoded = decode(
        Record(packed(event_time_us=START + 2 * HOUR), timestamp=START // 1000),
        Record(packed(event_time_us=START), timestamp=START // 1000),
        with_pipeline=live,
    )
    (rejected,) = decoded.rejected
    assert rejected.reason == "future"
    assert rejected.detail == (
        f"event_time_us {START + 2 * HOUR} lies over an hour ahead of the time that its record has"
    )
    assert len(decoded.accepted) == 1


def test_what_is_set_aside_fits_into_a_record() -> None:
    """However large what was wrong with it is."""
    record = Record(named({"x" * 900_000: 1}), HEADERS, key=b"k" * 900_000)
    (rejected,) = decode(record).rejected
    assert len(rejected.SerializeToString()) < 100_000
    (rejected,) = decode(Record(named({"x" * 900_000: 1}), HEADERS)).rejected
    assert rejected.reason == "unknown_field"
    assert len(rejected.SerializeToString()) < 100_000


@given(
    value=st.one_of(st.none(), st.binary(max_size=200), st.text(max_size=200).map(str.encode)),
    json_header=st.sampled_from([(), HEADERS, [("content-type", None)]]),
    key=st.one_of(st.none(), st.binary(max_size=20)),
)
def test_no_bytes_stop_the_stream(value: bytes | None, json_header: Headers, key: bytes | None) -> None:
    record = Record(value, json_header, key=key)
    decoded = decode(record)
    assert len(decoded.accepted) + len(decoded.rejected) == 1
    read, rejected = decode_outcomes(pipeline, [record])
    assert len(read) + len(rejected) == 1


@given(
    fields=st.dictionaries(
        st.sampled_from(["customer_id", "terminal_id", "amount_cents", "more"]),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=150),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
            max_leaves=4,
        ),
    )
)
def test_no_json_stops_the_stream(fields: dict[str, Any]) -> None:
    value = json.dumps({"eventId": "e", "eventTimeUs": START, "fields": fields}).encode()
    decoded = decode(Record(value, HEADERS))
    assert len(decoded.accepted) + len(decoded.rejected) == 1


def outcome(*, label: dict[str, Any] | None = None, previous: float | None = None, **prediction: Any) -> Outcome:
    fields: dict[str, Any] = {"event_id": "e", "event_time_us": START, "entities": ["c", "t"], "ingested": True}
    values: dict[str, Any] = {"value": 1.0, "label_time_us": START}
    made = Outcome(
        prediction=Prediction(**fields | prediction),
        label=Label(**values | (label or {})),
        kind=OUTCOME_KIND_LABELLED,
    )
    if previous is not None:
        made.previous_label = previous
    return made


def test_outcomes_that_can_be_used_are_read() -> None:
    expired = outcome()
    expired.ClearField("label")
    expired.kind = OUTCOME_KIND_EXPIRED
    usable = [outcome(), outcome(previous=0.0), outcome(ingested=False, entities=[], event_time_us=0), expired]
    records = [Record(one.SerializeToString(), offset=i) for i, one in enumerate(usable)]
    read, rejected = decode_outcomes(pipeline, records)
    assert read == [(offset, 1_234_000, one) for offset, one in enumerate(usable)]
    assert rejected == []


@pytest.mark.parametrize(
    ("value", "reason", "detail"),
    [
        (None, "undecodable", "the record has no value; an Outcome is expected"),
        (b"\xff", "undecodable", "the value is no protobuf Outcome: "),
        (outcome(entities=["c"]), "wrong_shape", "prediction.entities has 1 ids; this pipeline has 2 entities"),
        (outcome(entities=["c", ""]), "missing_field", "the id of the terminal is missing"),
        (outcome(event_id=""), "missing_field", "event_id is missing; it is required text"),
        (outcome(event_time_us=-1), "out_of_range", "event_time_us is -1; allowed are the years 1970 to 2200"),
        (outcome(label={"label_time_us": 0}), "missing_field", "label.label_time_us is 0; allowed are the years"),
        (outcome(label={"label_time_us": 2**62}), "out_of_range", f"label.label_time_us is {2**62}; allowed are"),
        (outcome(label={"value": math.nan}), "out_of_range", "label.value is nan; it must be finite"),
        (outcome(label={"value": math.inf}), "out_of_range", "label.value is inf; it must be finite"),
        (outcome(previous=math.nan), "out_of_range", "previous_label is nan; it must be finite"),
    ],
)
def test_outcomes_that_cannot_be_used_are_set_aside(value: Outcome | bytes | None, reason: str, detail: str) -> None:
    content = value.SerializeToString() if isinstance(value, Outcome) else value
    read, (rejected,) = decode_outcomes(pipeline, [Record(content, offset=7)])
    assert read == []
    assert (rejected.source.offset, rejected.reason) == (7, reason)
    assert rejected.detail.startswith(detail)
