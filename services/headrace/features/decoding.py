"""Records of `events` into accepted events, or into rejected records with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from headrace.features.event_merging import AcceptedEvent
from headrace.features.time_guard import TimeBounds, TimeGuard, Verdict
from headrace.pipeline import DAY, EventError, Pipeline
from headrace.pipeline.state import compile_plan
from headrace.platform.event_codec import CheckedEvent, check_event, is_json, parse
from headrace.platform.rejected_records import MAX_KEY_BYTES, reject
from headrace.v1.event_pb2 import Event, Rejected

SERVICE = "features"


class Record(Protocol):
    """What is used of a consumed record."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


@dataclass(frozen=True)
class DecodedPartition:
    """The records of one partition, told apart.

    Attributes:
        accepted: events to merge and evaluate, in offset order.
        rejected: what is set aside.
        guard: the partition's guard after them.
    """

    accepted: list[AcceptedEvent]
    rejected: list[Rejected]
    guard: TimeGuard


def decode_partition(pipeline: Pipeline, records: Sequence[Record], guard: TimeGuard) -> DecodedPartition:
    """Decode and check the records of one partition.

    Args:
        pipeline: gives schema, lateness and the largest jump.
        records: in offset order.
        guard: the partition's guard before them.
    """
    accepted: list[AcceptedEvent] = []
    rejected: list[Rejected] = []
    for record in records:
        try:
            _check_key(record.key)
            event = check_event(pipeline, parse(record.value, is_json(record.headers), Event()))
            verdict, after = guard.decide(event.time_us, record.timestamp * 1000, time_bounds(pipeline))
            _check_verdict(pipeline, event, verdict, guard, after)
        except _TimeRefusedError as refused:
            guard = refused.guard
            rejected.append(reject(record, refused, SERVICE))
        except EventError as error:
            rejected.append(reject(record, error, SERVICE))
        else:
            guard = after
            late = verdict == "late"
            accepted.append(AcceptedEvent(record.offset, record.timestamp * 1000, record.key, event, guard, late))
    return DecodedPartition(accepted, rejected, guard)


class _TimeRefusedError(EventError):
    def __init__(self, reason: str, detail: str, guard: TimeGuard) -> None:
        super().__init__(reason, "event_time_us", detail)
        self.guard = guard


def _check_key(key: bytes | None) -> None:
    # The vector has the same key, and must fit where the event did.
    if key is not None and len(key) > MAX_KEY_BYTES:
        raise EventError("too_large", "", f"the key has {len(key)} bytes; at most {MAX_KEY_BYTES} fit")


@lru_cache(maxsize=64)
def time_bounds(pipeline: Pipeline) -> TimeBounds:
    """What a pipeline allows of event times."""
    retention = max((entity.retention for entity in compile_plan(pipeline).entities), default=pipeline.lateness)
    return TimeBounds(pipeline.lateness, retention, pipeline.max_jump, pipeline.clock == "live")


def _check_verdict(
    pipeline: Pipeline, event: CheckedEvent, verdict: Verdict, guard: TimeGuard, after: TimeGuard
) -> None:
    if verdict == "future":
        raise _TimeRefusedError(
            "future", f"event_time_us {event.time_us} lies over an hour ahead of the time that its record has", after
        )
    if verdict == "leap":
        ahead = (event.time_us - guard.highest) / DAY
        raise _TimeRefusedError(
            "future",
            f"event_time_us lies {ahead:.1f} days ahead of its partition; more than {pipeline.max_jump / DAY:g} need "
            "the next event to confirm it",
            after,
        )
    if verdict == "too_late":
        behind = (guard.highest - event.time_us) / DAY
        kept = time_bounds(pipeline).retention / DAY
        raise _TimeRefusedError(
            "too_late",
            f"event_time_us lies {behind:.1f} days behind its partition; no window reaches back more than {kept:.1f}",
            after,
        )
