"""Records of `events` into accepted events, or into rejected records with the reason.

All records of a partition are checked together, column by column. One that may break a rule is looked at by itself,
and says what is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from google.protobuf.message import DecodeError

from headrace.features.accepted_events import AcceptedEvents, Guards, GuardsInOrder
from headrace.features.time_guard import TimeBounds, TimeGuard, Verdict
from headrace.pipeline import DAY, EventError, Pipeline
from headrace.pipeline.events import EventColumns, Int64Array
from headrace.pipeline.schema import check_identity
from headrace.pipeline.state import compile_plan
from headrace.platform.event_codec import MAX_EVENT_BYTES, check_event, is_json, parse, suspects
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

    accepted: AcceptedEvents
    rejected: list[Rejected]
    guard: TimeGuard


def decode_partition(pipeline: Pipeline, records: Sequence[Record], guard: TimeGuard) -> DecodedPartition:
    """Decode and check the records of one partition.

    Args:
        pipeline: gives schema, lateness and the largest jump.
        records: in offset order.
        guard: the partition's guard before them.
    """
    read = _Read(pipeline, records)
    refused = read.refused
    columns = read.columns()
    for row in suspects(pipeline.event, columns):
        try:
            check_identity(read.ids[row], read.times[row])
            pipeline.event.check(read.texts[row], read.numbers[row])
        except EventError as error:
            refused.append((read.rows[row], error))
            read.sound[row] = False
    kept = np.flatnonzero(read.sound)
    if len(kept) < len(read.rows):
        columns = columns.take(kept)
    places = np.array(read.rows, np.intp)[kept]
    produced_us = np.array([record.timestamp for record in records], np.int64)[places] * 1000
    times = _judge_times(pipeline, columns.times, produced_us, guard)
    refused += [(int(places[row]), error) for row, error in times.refused]
    if times.refused:
        taken = np.flatnonzero(times.accepted)
        columns, places, produced_us, kept = columns.take(taken), places[taken], produced_us[taken], kept[taken]
    accepted = AcceptedEvents(
        pipeline,
        columns,
        np.array([record.offset for record in records], np.int64)[places],
        produced_us,
        [records[place].key for place in places.tolist()],
        np.array(read.answered, np.bool_)[kept],
        times.late[times.accepted],
        times.guards,
    )
    refused.sort(key=lambda one: one[0])
    return DecodedPartition(accepted, [reject(records[place], error, SERVICE) for place, error in refused], times.guard)


class _Read:
    """What records hold, row by row, as far as they are events at all.

    Attributes:
        rows: position among the records of each row.
        refused: positions and reasons of the others.
        sound: for each row whether it follows the schema, until it is found not to.
    """

    def __init__(self, pipeline: Pipeline, records: Sequence[Record]) -> None:
        self._pipeline = pipeline
        self.rows: list[int] = []
        self.ids: list[str] = []
        self.times: list[int] = []
        self.texts: list[Sequence[str]] = []
        self.numbers: list[Sequence[float]] = []
        self.answered: list[bool] = []
        self.refused: list[tuple[int, EventError]] = []
        fingerprint = pipeline.schema_fingerprint
        width = len(pipeline.event.texts), len(pipeline.event.numbers)
        for row, record in enumerate(records):
            value, key = record.value, record.key
            try:
                if key is not None and len(key) > MAX_KEY_BYTES:
                    # The vector has the same key, and must fit where the event did.
                    raise EventError("too_large", "", f"the key has {len(key)} bytes; at most {MAX_KEY_BYTES} fit")
                json = bool(record.headers) and is_json(record.headers)
                if json or not value or len(value) > MAX_EVENT_BYTES:
                    event = parse(value, json, Event())
                else:
                    event = Event.FromString(value)
                texts, numbers = event.texts[:], event.numbers[:]
                if event.schema_fingerprint == fingerprint and (len(texts), len(numbers)) == width:
                    self.ids.append(event.event_id)
                    self.times.append(event.event_time_us)
                    self.texts.append(texts)
                    self.numbers.append(numbers)
                else:
                    checked = check_event(pipeline, event)
                    self.ids.append(checked.event_id)
                    self.times.append(checked.time_us)
                    self.texts.append(checked.texts)
                    self.numbers.append(checked.numbers)
                self.answered.append(event.answered)
                self.rows.append(row)
            except DecodeError:
                self.refused.append((row, _refusal(value)))
            except EventError as error:
                self.refused.append((row, error))
        self.sound = np.ones(len(self.rows), np.bool_)

    def columns(self) -> EventColumns:
        """The rows as columns."""
        return EventColumns.from_rows(self._pipeline.event, self.ids, self.times, self.texts, self.numbers)


def _refusal(value: bytes | None) -> EventError:
    try:
        parse(value, False, Event())
    except EventError as error:
        return error
    raise AssertionError("a value was refused, and then taken")


@dataclass(frozen=True)
class _Judged:
    """What the time guard says of n events.

    Attributes:
        accepted: whether each is accepted, shape (n,).
        late: whether windows at its time may be incomplete already, shape (n,).
        refused: rows and reasons of those that are not.
        guards: guard after each accepted event.
        guard: guard after the last event.
    """

    accepted: np.ndarray[tuple[int], np.dtype[np.bool_]]
    late: np.ndarray[tuple[int], np.dtype[np.bool_]]
    refused: list[tuple[int, EventError]]
    guards: Guards
    guard: TimeGuard


def _judge_times(pipeline: Pipeline, times: Int64Array, produced_us: Int64Array, guard: TimeGuard) -> _Judged:
    bounds = time_bounds(pipeline)
    accepted, late = np.ones(len(times), np.bool_), np.zeros(len(times), np.bool_)
    in_order, after = guard.accept_run(times, produced_us, bounds)
    if in_order == len(times):
        return _Judged(accepted, late, [], GuardsInOrder(guard, times, produced_us, bounds), after)
    guards: list[TimeGuard] = []
    refused: list[tuple[int, EventError]] = []
    for row, (time, produced) in enumerate(zip(times.tolist(), produced_us.tolist(), strict=True)):
        verdict, after = guard.decide(time, produced, bounds)
        error = _refused_time(pipeline, time, verdict, guard)
        if error is None:
            guards.append(after)
            late[row] = verdict == "late"
        else:
            accepted[row] = False
            refused.append((row, error))
        guard = after
    return _Judged(accepted, late, refused, Guards(guards), guard)


@lru_cache(maxsize=64)
def time_bounds(pipeline: Pipeline) -> TimeBounds:
    """What a pipeline allows of event times."""
    retention = max((entity.retention for entity in compile_plan(pipeline).entities), default=pipeline.lateness)
    return TimeBounds(pipeline.lateness, retention, pipeline.max_jump, pipeline.clock == "live")


def _refused_time(pipeline: Pipeline, time: int, verdict: Verdict, guard: TimeGuard) -> EventError | None:
    field = "event_time_us"
    if verdict == "future":
        return EventError(
            "future", field, f"event_time_us {time} lies over an hour ahead of the time that its record has"
        )
    if verdict == "leap":
        ahead = (time - guard.highest) / DAY
        return EventError(
            "future",
            field,
            f"event_time_us lies {ahead:.1f} days ahead of its partition; more than {pipeline.max_jump / DAY:g} need "
            "the next event to confirm it",
        )
    if verdict == "too_late":
        behind = (guard.highest - time) / DAY
        kept = time_bounds(pipeline).retention / DAY
        return EventError(
            "too_late",
            field,
            f"event_time_us lies {behind:.1f} days behind its partition; no window reaches back more than {kept:.1f}",
        )
    return None
