"""Events and labels between their wire form and the pipeline's checked, packed form."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from google.protobuf.struct_pb2 import Value

from headrace.pipeline import EventColumns, EventError, Pipeline
from headrace.pipeline.schema import LATEST_TIME_US, MAX_ID_BYTES, EventSchema, check_identity
from headrace.v1.event_pb2 import Event

CONTENT_TYPE = "content-type"
JSON = b"application/json"
MAX_EVENT_BYTES = 1 << 20

M = TypeVar("M", bound=Message)


@dataclass(slots=True)  # not frozen: that would take three times as long to make
class CheckedEvent:
    """One event that follows the pipeline's schema.

    Attributes:
        event_id: its id.
        time_us: event time in microseconds since 1970-01-01 UTC.
        texts: text fields in schema order.
        numbers: other fields in schema order.
        answered: whether the gateway has answered it already.
    """

    event_id: str
    time_us: int
    texts: Sequence[str]
    numbers: Sequence[float]
    answered: bool


def is_json(headers: Iterable[tuple[str, bytes | None]]) -> bool:
    """Whether a record's headers say that its value is JSON."""
    return any(
        name.lower() == CONTENT_TYPE and (value or b"").split(b";")[0].strip().lower() == JSON
        for name, value in headers
    )


def parse(value: bytes | None, json: bool, message: M) -> M:
    """Fill a message from a record's value: protobuf, or the proto3 JSON mapping.

    Raises:
        EventError: no value, too large, or not that message.
    """
    kind = type(message).__name__
    if not value:
        raise EventError("undecodable", "", f"the record has no value; an {kind} is expected")
    if len(value) > MAX_EVENT_BYTES:
        raise EventError("too_large", "", f"the value has {len(value)} bytes; at most {MAX_EVENT_BYTES} are read")
    try:
        if json:
            return json_format.Parse(value, message)
        message.ParseFromString(value)
    except (json_format.ParseError, DecodeError, UnicodeDecodeError, RecursionError) as error:
        form = "JSON" if json else "protobuf"
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EventError("undecodable", "", f"the value is no {form} {kind}: {reason}") from error
    return message


def check_event(pipeline: Pipeline, event: Event) -> CheckedEvent:
    """Check an event against the pipeline's schema and bring it into packed order.

    Raises:
        EventError: names the field, what is wrong and what is allowed.
    """
    event_id, time_us = event.event_id, event.event_time_us
    if event.schema_fingerprint == pipeline.schema_fingerprint:
        packed, figures = list(event.texts), list(event.numbers)
        plain = 0 < len(event_id) <= MAX_ID_BYTES // 4 and 0 < time_us < LATEST_TIME_US
        if plain and pipeline.event.plainly_follows(packed, figures):
            return CheckedEvent(event_id, time_us, packed, figures, event.answered)
    check_identity(event_id, time_us)
    if event.schema_fingerprint:
        length = pipeline.accepted_schema_fingerprints.get(event.schema_fingerprint)
        if length is None:
            raise EventError(
                "wrong_fingerprint",
                "schema_fingerprint",
                f"schema_fingerprint is {event.schema_fingerprint:#x}; this pipeline has "
                + " and ".join(f"{one:#x}" for one in pipeline.accepted_schema_fingerprints),
            )
        # Made with an earlier schema, it lacks the optional fields that were added since.
        added = pipeline.event.fields[length:]
        texts: Sequence[str] = [*event.texts, *("" for field in added if field.kind == "text")]
        numbers: Sequence[float] = [*event.numbers, *(math.nan for field in added if field.kind != "text")]
        pipeline.event.check(texts, numbers)
    else:
        texts, numbers = pipeline.event.pack({name: _plain(name, value) for name, value in event.fields.fields.items()})
    return CheckedEvent(event.event_id, event.event_time_us, texts, numbers, event.answered)


def pack_event(pipeline: Pipeline, event: CheckedEvent) -> Event:
    """The packed message of a checked event."""
    return Event(
        event_id=event.event_id,
        event_time_us=event.time_us,
        schema_fingerprint=pipeline.schema_fingerprint,
        texts=event.texts,
        numbers=event.numbers,
        answered=event.answered,
    )


def event_columns(pipeline: Pipeline, events: Sequence[CheckedEvent]) -> EventColumns:
    """Checked events as columns."""
    return EventColumns.from_rows(
        pipeline.event,
        [event.event_id for event in events],
        [event.time_us for event in events],
        [event.texts for event in events],
        [event.numbers for event in events],
    )


def suspects(schema: EventSchema, events: EventColumns) -> list[int]:
    """Rows of n events that may break the schema: to be checked one by one. All others follow it.

    Args:
        schema: of the events.
        events: the events, with as many texts and numbers as the schema has.
    """
    found = (events.times <= 0) | (events.times >= LATEST_TIME_US)
    for texts, most, optional in [
        (events.ids, MAX_ID_BYTES, False),
        *((events.texts[field.name], field.max_bytes, field.optional) for field in schema.texts),
    ]:
        # A character has four bytes at most.
        if (not optional and "" in texts) or max(map(len, texts), default=0) * 4 > most:
            found |= np.fromiter((not text or len(text.encode()) > most for text in texts), np.bool_, len(texts))
    for field in schema.numbers:
        values = events.numbers[field.name]
        fine = (values >= field.minimum) & (values <= field.maximum) & (np.abs(values) < np.inf)
        if field.kind in ("integer", "boolean"):
            fine &= values == np.floor(values)
        found |= ~(fine | np.isnan(values)) if field.optional else ~fine
    return np.flatnonzero(found).tolist()


def entity_ids(pipeline: Pipeline, event: CheckedEvent) -> list[str]:
    """Ids of the event's entities, in the pipeline's entity order."""
    names = [field.name for field in pipeline.event.texts]
    return [event.texts[names.index(field)] for field in pipeline.entity_fields]


def _plain(name: str, value: Value) -> object:
    match value.WhichOneof("kind"):
        case "string_value":
            return value.string_value
        case "number_value":
            if math.isinf(value.number_value):
                raise EventError("out_of_range", name, f"{name} is infinite; it must be finite")
            return value.number_value
        case "bool_value":
            return value.bool_value
        case "null_value" | None:
            return None
        case kind:
            raise EventError("wrong_type", name, f"{name} is a {kind.removesuffix('_value')}; it must be a plain value")
