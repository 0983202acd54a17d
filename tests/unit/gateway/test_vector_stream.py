"""Vectors: each source offset once, unknown features wait in place, what is unusable is set aside."""

from __future__ import annotations

from dataclasses import dataclass, field

from headrace.gateway.vector_stream import VectorBatch, highest_of, take
from headrace.platform.rejected_records import REPLAY_HEADER
from headrace.v1.event_pb2 import SourcePosition
from headrace.v1.vector_pb2 import FeatureVector

KNOWN, OTHER = 7, 8


@dataclass
class Record:
    offset: int
    value: bytes | None
    key: bytes | None = b"c1"
    headers: list[tuple[str, bytes]] = field(default_factory=list)
    topic: str = "fraud.vectors"
    partition: int = 0


def vector(source: int, *, fingerprint: int = KNOWN, values: int = 2, event_id: str = "") -> bytes:
    return FeatureVector(
        event_id=event_id or f"e{source}",
        features_fingerprint=fingerprint,
        values=[1.0] * values,
        source=SourcePosition(topic="fraud.events", partition=0, offset=source),
    ).SerializeToString()


def records(*values: bytes | None, first: int = 10) -> dict[int, list[Record]]:
    return {0: [Record(offset, value) for offset, value in enumerate(values, first)]}


def ids(batch: VectorBatch) -> list[str]:
    return [one.event_id for one in batch.vectors]


def test_a_source_offset_that_was_seen_is_dropped() -> None:
    batch = take(records(vector(5), vector(6), vector(5), vector(6), vector(7)), {0: 4}, KNOWN, 2)
    assert ids(batch) == ["e5", "e6", "e7"]
    assert batch.redelivered == 2
    assert (batch.next_offsets, batch.highest) == ({0: 15}, {0: 7})
    again = take(records(vector(7), vector(8), first=15), {0: highest_of(batch.metadata(0))}, KNOWN, 2)
    assert ids(again) == ["e8"]


def test_nothing_was_seen_without_metadata() -> None:
    assert highest_of("") == -1
    assert ids(take(records(vector(0)), {}, KNOWN, 2)) == ["e0"]


def test_a_vector_of_unknown_features_waits_with_all_behind_it() -> None:
    batch = take(records(vector(5), vector(6, fingerprint=OTHER), vector(7)), {0: 4}, KNOWN, 2)
    assert ids(batch) == ["e5"]
    assert (batch.next_offsets, batch.highest) == ({0: 11}, {0: 5})
    offset, waiting = batch.waiting[0]
    assert (offset, waiting.event_id) == (11, "e6")
    at_the_head = take(records(vector(6, fingerprint=OTHER), first=11), {0: 5}, KNOWN, 2)
    assert at_the_head.next_offsets == {}
    # Seen before, it need not wait.
    assert take(records(vector(5, fingerprint=OTHER)), {0: 5}, KNOWN, 2).waiting == {}


def test_what_is_no_vector_is_set_aside() -> None:
    batch = take(records(b"\xff\xff", None, vector(5, values=3), vector(6)), {0: -1}, KNOWN, 2)
    assert [one.reason for one in batch.unusable] == ["undecodable", "wrong_shape", "wrong_shape"]
    assert ids(batch) == ["e6"]
    assert batch.next_offsets == {0: 14}


def test_a_vector_that_is_brought_back_is_scored_though_others_came_first() -> None:
    brought_back = Record(20, vector(3), headers=[(REPLAY_HEADER, b"fraud.rejected/0/1")])
    batch = take({0: [brought_back, Record(21, vector(4)), Record(22, vector(6))]}, {0: 5}, KNOWN, 2)
    assert ids(batch) == ["e3", "e6"]
    assert (batch.next_offsets, batch.highest, batch.redelivered) == ({0: 23}, {0: 6}, 1)
    assert take({0: [brought_back]}, {0: 5}, KNOWN, 2).highest == {0: 5}
