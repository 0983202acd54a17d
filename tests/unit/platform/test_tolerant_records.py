"""Against batches as brokers send them, with header names that aiokafka does not read."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from aiokafka.record.memory_records import MemoryRecords

from headrace.platform.tolerant_records import TolerantRecords

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
NAME = "name"
Headers = list[tuple[str, bytes | None]]


class Header(str):
    """A name whose bytes are not UTF-8."""

    __slots__ = ()

    def encode(self, *_: Any, **__: Any) -> bytes:
        return b"\xff\xfe" + NAME.encode()


def batch(first: int, headers: list[Headers], codec: str = "none") -> bytes:
    """A batch with a record for each list of headers."""
    builder = _DefaultRecordBatchBuilderPy(2, CODECS[codec], 0, -1, -1, -1, 1 << 20)
    for offset, one in enumerate(headers):
        builder.append(offset, timestamp=7, key=b"k", value=b"v" * 50, headers=one)
    data = bytearray(builder.build())
    struct.pack_into(">q", data, 0, first)
    return bytes(data)


def read(data: bytes, records: Any, start: int = 0) -> list[tuple[int, Headers]]:
    """What a consumer gets of an answer to a fetch."""
    found = PartitionRecords(TopicPartition("t", 0), records(data), [], start, None, None, True, READ_COMMITTED)
    return [(record.offset, list(record.headers)) for record in found]


@pytest.mark.parametrize("codec", CODECS)
def test_a_name_that_is_not_utf_8_stops_nothing(codec: str) -> None:
    data = batch(0, [[("a", b"1")], [(Header(), b"2"), ("b", None)], []], codec) + batch(3, [[("c", b"3")]], codec)
    with pytest.raises(UnicodeDecodeError):
        read(data, MemoryRecords)
    expected: list[tuple[int, Headers]] = [
        (0, [("a", b"1")]),
        (1, [("\\xff\\xfename", b"2"), ("b", None)]),
        (2, []),
        (3, [("c", b"3")]),
    ]
    assert read(data, TolerantRecords) == expected
    assert read(data, TolerantRecords, start=2) == expected[2:]


@pytest.mark.parametrize("codec", CODECS)
def test_other_records_are_read_as_they_are(codec: str) -> None:
    data = batch(0, [[("a", b"1")]] * 3, codec) + batch(3, [[], [("ä", None)]], codec)
    assert read(data, TolerantRecords) == read(data, MemoryRecords)
    # The last batch of an answer may be cut.
    assert read(data[:-1], TolerantRecords) == read(data[:-1], MemoryRecords)
