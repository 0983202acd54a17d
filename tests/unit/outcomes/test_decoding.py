"""Records are joined, forwarded or set aside, by what they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from headrace.outcomes.decoding import decode
from headrace.pipeline import Label as DeclaredLabel
from headrace.platform.partitioning import murmur2_partition
from headrace.v1.event_pb2 import Label
from headrace.v1.prediction_pb2 import ROLE_ANSWER, Prediction

JSON = [("content-type", b"application/json; charset=utf-8")]
PARTITIONS = 4


@dataclass
class Read:
    """A record as read."""

    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()
    key: bytes | None = None
    topic: str = "labels"
    partition: int = murmur2_partition(b"e", PARTITIONS)
    offset: int = 7


def label(**fields: object) -> bytes:
    return json.dumps({"eventId": "e", "value": 1, "labelTimeUs": "1700000000000000"} | fields).encode()


def test_labels_in_both_forms() -> None:
    packed = Label(event_id="e", value=1, label_time_us=1_700_000_000_000_000).SerializeToString()
    decoded = decode([], [Read(packed), Read(label(), JSON)], PARTITIONS)
    assert len(decoded.labels) == 2
    assert decoded.labels[0] == decoded.labels[1]
    assert decoded.labels[0].event_id == b"e"
    assert decoded.labels[0].label == (1.0, 1_700_000_000_000_000, 7)


def test_predictions_keep_their_bytes() -> None:
    prediction = Prediction(event_id="e", event_time_us=1, role=ROLE_ANSWER, prediction_id="p", features=[1, 2])
    value = prediction.SerializeToString()
    (arrival,) = decode([Read(value)], [], PARTITIONS).predictions
    assert (arrival.event_id, arrival.time_us, arrival.prediction_id, arrival.value) == (b"e", 1, "p", value)


@pytest.mark.parametrize(
    ("value", "headers", "reason", "detail"),
    [
        (None, (), "undecodable", "no value"),
        (b"\xff", (), "undecodable", "protobuf Label"),
        (b"{", JSON, "undecodable", "JSON Label"),
        (label(more=1), JSON, "undecodable", "more"),
        (label(eventId=""), JSON, "missing_field", "event_id is missing"),
        (label(eventId="x" * 129), JSON, "out_of_range", "at most 128"),
        (label(labelTimeUs=0), JSON, "missing_field", "label_time_us is missing"),
        (label(labelTimeUs=-1), JSON, "out_of_range", "1970 to 2200"),
        (label(labelTimeUs=1_700_000_000_000_000_000), JSON, "out_of_range", "1970 to 2200"),
        (label(value="NaN"), JSON, "out_of_range", "value is nan"),
        (label(value=0.5), JSON, "out_of_range", "0 or 1"),
    ],
)
def test_labels_that_cannot_be_used(
    value: bytes | None, headers: Sequence[tuple[str, bytes]], reason: str, detail: str
) -> None:
    decoded = decode([], [Read(value, headers, key=b"k")], PARTITIONS)
    assert not decoded.labels
    (rejected,) = decoded.rejected
    assert rejected.reason == reason
    assert detail in rejected.detail
    assert (rejected.service, rejected.key, rejected.json) == ("outcomes", b"k", bool(headers))
    assert (rejected.source.topic, rejected.source.offset) == ("labels", 7)


def test_numbers_are_labels_where_the_pipeline_says_so() -> None:
    minutes = DeclaredLabel(kind="number", minimum=0, maximum=600, unit="minutes")
    values = [0.0, 17.25, 600.0, 600.5, -1e-9]
    decoded = decode([], [Read(label(value=value), JSON) for value in values], PARTITIONS, minutes)
    assert [one.label.value for one in decoded.labels] == values[:3]
    assert [(one.reason, one.field) for one in decoded.rejected] == 2 * [("out_of_range", "value")]
    assert decoded.rejected[0].detail == "value is 600.5; allowed is 0 to 600 minutes"


def test_predictions_that_cannot_be_used() -> None:
    values = [
        b"\xff",
        Prediction(event_id="e", event_time_us=1).SerializeToString(),
        Prediction(event_id="e", role=ROLE_ANSWER).SerializeToString(),
    ]
    decoded = decode([Read(value, topic="predictions") for value in values], [], PARTITIONS)
    assert not decoded.predictions
    assert [one.reason for one in decoded.rejected] == ["undecodable", "missing_field", "missing_field"]
    assert "role" in decoded.rejected[1].detail


def test_misplaced_records_go_where_they_belong() -> None:
    right = murmur2_partition(b"e", PARTITIONS)
    record = Read(label(), JSON, partition=(right + 1) % PARTITIONS)
    decoded = decode([], [record], PARTITIONS)
    assert not decoded.labels
    (misplaced,) = decoded.misplaced
    assert (misplaced.event_id, misplaced.partition, misplaced.record) == (b"e", right, record)
