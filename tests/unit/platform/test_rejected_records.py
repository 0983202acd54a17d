from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.pipeline import EventError
from headrace.platform.rejected_records import (
    MAX_HEADER_BYTES,
    MAX_KEY_BYTES,
    MAX_VALUE_BYTES,
    REPLAYED,
    is_whole,
    position_text,
    reject,
    replay_marker,
)
from headrace.v1.event_pb2 import Rejected, SourcePosition

ERROR = EventError("out_of_range", "amount", "amount is 9; allowed is 0 to 5")


@dataclass
class Record:
    value: bytes | None = b"value"
    key: bytes | None = b"key"
    headers: Sequence[tuple[str, bytes | None]] = ()
    topic: str = "fraud.events"
    partition: int = 2
    offset: int = 7


def test_everything_that_brings_a_record_back_is_kept() -> None:
    headers = [("content-type", b"application/json"), ("trace", None), ("trace", b"2")]
    rejected = reject(Record(headers=headers), ERROR, "features")
    assert position_text(rejected.source) == "fraud.events/2/7"
    assert (rejected.key, rejected.value, rejected.json) == (b"key", b"value", True)
    assert [(one.name, one.value) for one in rejected.headers] == [
        ("content-type", b"application/json"),
        ("trace", b""),
        ("trace", b"2"),
    ]
    assert (rejected.reason, rejected.field, rejected.service) == ("out_of_range", "amount", "features")
    assert rejected.detail == ERROR.detail
    assert rejected.value_sha256 == hashlib.sha256(b"value").digest()
    assert is_whole(rejected)


@pytest.mark.parametrize(
    "record",
    [
        Record(value=b"v" * (MAX_VALUE_BYTES + 1)),
        Record(value=b"v" * 10_000_000),
        Record(key=b"k" * (MAX_KEY_BYTES + 1)),
        Record(headers=[("a", b"h" * MAX_HEADER_BYTES), ("b", b"2")]),
        Record(value=None),
    ],
)
def test_what_is_cut_or_was_never_there_is_not_whole(record: Record) -> None:
    rejected = reject(record, EventError("r", "", "d" * 5000), "features")
    assert not is_whole(rejected)
    assert rejected.value_size_bytes == len(record.value or b"")
    assert rejected.key_size_bytes == len(record.key or b"")
    assert rejected.header_count == len(record.headers)
    assert rejected.ByteSize() < 100_000
    if record.value is not None:
        assert rejected.value_sha256 == hashlib.sha256(record.value).digest()


def test_what_was_set_aside_before_hashes_were_kept_is_not_taken_for_whole() -> None:
    assert not is_whole(Rejected(value=b"v", value_size_bytes=1))


@given(
    value=st.one_of(st.none(), st.binary(max_size=100)),
    key=st.one_of(st.none(), st.binary(max_size=100)),
    headers=st.lists(st.tuples(st.text(max_size=20), st.one_of(st.none(), st.binary(max_size=20)))),
)
def test_small_records_survive(value: bytes | None, key: bytes | None, headers: list[tuple[str, bytes | None]]) -> None:
    rejected = Rejected.FromString(reject(Record(value, key, headers), ERROR, "features").SerializeToString())
    assert is_whole(rejected) == (value is not None)
    assert (rejected.value, rejected.key) == (value or b"", key or b"")
    assert [(one.name, one.value or None) for one in rejected.headers] == [(n, v or None) for n, v in headers]


def test_a_replay_is_told_from_what_it_brought_back() -> None:
    marker = replay_marker(SourcePosition(topic="fraud.rejected", partition=0, offset=5))
    assert (marker.reason, position_text(marker.source)) == (REPLAYED, "fraud.rejected/0/5")
