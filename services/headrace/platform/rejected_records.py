"""What `rejected` keeps of a record that a service could not use, and of the replay of one. Pure."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from typing import Protocol

from headrace.pipeline.errors import EventError
from headrace.platform.event_codec import is_json
from headrace.v1.event_pb2 import RecordHeader, Rejected, SourcePosition

MAX_VALUE_BYTES = 64 * 1024
MAX_KEY_BYTES = 4 * 1024
MAX_HEADER_BYTES = 16 * 1024
MAX_DETAIL_CHARACTERS = 1000
MAX_FIELD_CHARACTERS = 128

REPLAYED = "replayed"
"""Reason of the record in `rejected` that says that an earlier one has been replayed."""
REPLAY_SERVICE = "replay"
REPLAY_HEADER = "headrace-replay-of"
"""Header of a replayed record: topic/partition/offset of the `Rejected` record that it was brought back from."""


class Record(Protocol):
    """What is used of a consumed record."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]: ...


def reject(record: Record, error: EventError, service: str) -> Rejected:
    """A record that cannot be used, cut so that it fits into one of `rejected` whatever was wrong with it.

    Args:
        record: as consumed.
        error: why it cannot be used.
        service: name of the service that sets it aside.
    """
    key, value, headers = record.key or b"", record.value or b"", record.headers or ()
    return Rejected(
        source=SourcePosition(topic=record.topic, partition=record.partition, offset=record.offset),
        key=key[:MAX_KEY_BYTES],
        key_size_bytes=len(key),
        value=value[:MAX_VALUE_BYTES],
        value_size_bytes=len(value),
        value_sha256=b"" if record.value is None else hashlib.sha256(value).digest(),
        headers=_fitting(headers),
        header_count=len(headers),
        reason=error.reason,
        field=error.field[:MAX_FIELD_CHARACTERS],
        detail=error.detail[:MAX_DETAIL_CHARACTERS],
        service=service,
        rejected_time_us=time.time_ns() // 1000,
        json=is_json(headers),
    )


def is_whole(rejected: Rejected) -> bool:
    """Whether key, value and headers are kept in full, so that the source is not needed to bring the record back."""
    return (
        bool(rejected.value_sha256)
        and hashlib.sha256(rejected.value).digest() == rejected.value_sha256
        and rejected.key_size_bytes == len(rejected.key)
        and rejected.header_count == len(rejected.headers)
    )


def replay_marker(at: SourcePosition) -> Rejected:
    """What `rejected` keeps of a replay.

    Args:
        at: where the `Rejected` record that was replayed lies.
    """
    return Rejected(source=at, reason=REPLAYED, service=REPLAY_SERVICE, rejected_time_us=time.time_ns() // 1000)


def position_text(at: SourcePosition) -> str:
    """topic/partition/offset."""
    return f"{at.topic}/{at.partition}/{at.offset}"


def _fitting(headers: Sequence[tuple[str, bytes | None]]) -> list[RecordHeader]:
    kept: list[RecordHeader] = []
    left = MAX_HEADER_BYTES
    for name, value in headers:
        left -= len(name.encode()) + len(value or b"")
        if left < 0:
            break
        kept.append(RecordHeader(name=name, value=value or b""))
    return kept
