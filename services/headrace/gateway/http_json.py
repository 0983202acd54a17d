"""JSON bodies into messages and back, by the JSON mapping of proto3. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn, TypeVar, cast

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from headrace.gateway.errors import InvalidRequestError, Violation
from headrace.gateway.request_messages import MAX_BATCH_EVENTS, MAX_VIOLATIONS, checked_event
from headrace.pipeline import Pipeline
from headrace.platform.event_codec import CheckedEvent
from headrace.v1.event_pb2 import Event
from headrace.v1.prediction_service_pb2 import Column, PredictBatchRequest

M = TypeVar("M", bound=Message)

MAX_DEPTH = 16
EVENTS = "events"
COLUMN_FORM = ("event_ids", "eventIds", "event_times_us", "eventTimesUs", "columns")
SHOWN = 200


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object of a body.

    Raises:
        InvalidRequestError: not JSON in UTF-8, no object, a name twice, NaN or infinity, or nested too deep.
    """
    try:
        parsed = json.loads(body.decode(), object_pairs_hook=_object, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise _invalid("", f"the body is not UTF-8: byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise _invalid("", f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from error
    except RecursionError as error:
        raise _invalid("", f"the body is nested deeper than {MAX_DEPTH}") from error
    except ValueError as error:
        # A whole number of thousands of digits.
        raise _invalid("", "the body has a number that is too long") from error
    if not isinstance(parsed, dict):
        raise _invalid("", "the body must be a JSON object")
    if _depth_exceeds(parsed, MAX_DEPTH):
        raise _invalid("", f"the body is nested deeper than {MAX_DEPTH}")
    return parsed


def message_of(parsed: dict[str, Any], message: M, where: str = "") -> M:
    """Fill a message.

    Args:
        parsed: a JSON object.
        message: empty.
        where: path of the object in the request, for what is said of it.

    Raises:
        InvalidRequestError: names the field and what is wrong.
    """
    try:
        return json_format.ParseDict(parsed, message)
    except json_format.ParseError as error:
        raise _invalid(*_explained(str(error), cast("Descriptor", message.DESCRIPTOR), where)) from error
    except (TypeError, ValueError, RecursionError, AttributeError) as error:
        # Texts with half of a surrogate pair, numbers where a text belongs: the library does not wrap them all.
        raise _invalid(where, "a value is not of the type that its field has") from error


def batch_of(parsed: dict[str, Any], pipeline: Pipeline) -> PredictBatchRequest:
    """A batch, given by columns as the message has it, or by `events`, one object for each.

    Raises:
        InvalidRequestError: names the index and field of each event at fault, at most 20 of them.
    """
    rows = parsed.pop(EVENTS, None)
    if rows is None:
        return message_of(parsed, PredictBatchRequest())
    if twice := [name for name in COLUMN_FORM if name in parsed]:
        raise _invalid(EVENTS, f"a batch is given by {EVENTS!r} or by columns ({', '.join(twice)}), not by both")
    if not isinstance(rows, list) or not 1 <= len(rows) <= MAX_BATCH_EVENTS:
        raise _invalid(EVENTS, f"{EVENTS!r} must be an array of 1 to {MAX_BATCH_EVENTS} events")
    request = message_of(parsed, PredictBatchRequest())
    wrong: list[Violation] = []
    events: list[CheckedEvent] = []
    for i, row in enumerate(rows):
        try:
            events.append(_event(row, pipeline, f"{EVENTS}[{i}]"))
        except InvalidRequestError as error:
            wrong += error.violations
            if len(wrong) >= MAX_VIOLATIONS:
                break
    if wrong:
        raise InvalidRequestError(wrong)
    request.event_ids.extend(event.event_id for event in events)
    request.event_times_us.extend(event.time_us for event in events)
    request.columns.extend(_columns(pipeline, events))
    return request


def to_json(message: Message) -> bytes:
    """A message as JSON: names as they are declared, and every field, also one that has its default."""
    data = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _event(row: Any, pipeline: Pipeline, where: str) -> CheckedEvent:
    if not isinstance(row, dict):
        raise _invalid(where, f"{where} must be an object")
    try:
        return checked_event(pipeline, message_of(row, Event(), where))
    except InvalidRequestError as error:
        raise InvalidRequestError(
            [Violation(re.sub(r"^event\b(?!s)", where, one.field), one.description) for one in error.violations]
        ) from error


def _columns(pipeline: Pipeline, events: list[CheckedEvent]) -> Iterator[Column]:
    for i, field in enumerate(pipeline.event.texts):
        yield Column(name=field.name, texts=[event.texts[i] for event in events])
    for i, field in enumerate(pipeline.event.numbers):
        yield Column(name=field.name, numbers=[event.numbers[i] for event in events])


def _object(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in pairs:
        if name in made:
            raise _invalid(_cut(name), f"the name {_cut(name)!r} comes twice in an object")
        made[name] = value
    return made


def _refuse_constant(name: str) -> NoReturn:
    raise _invalid("", f"{name} is not JSON; numbers must be finite")


def _depth_exceeds(parsed: Any, most: int) -> bool:
    level: list[Any] = [parsed]
    for _ in range(most):
        level = [
            child
            for one in level
            for child in (one.values() if isinstance(one, dict) else one)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True


_WRAPPED = re.compile(r"^Failed to parse (\S+) field: ")
_UNKNOWN = re.compile(r'^Message type "[\w.]+" has no field named "(.*?)" at "', re.DOTALL)
_KINDS = {
    FieldDescriptor.CPPTYPE_STRING: "text",
    FieldDescriptor.CPPTYPE_BOOL: "true or false",
    FieldDescriptor.CPPTYPE_DOUBLE: "a number",
    FieldDescriptor.CPPTYPE_MESSAGE: "an object",
    FieldDescriptor.CPPTYPE_INT64: "a whole number of 64 bits",
    FieldDescriptor.CPPTYPE_UINT64: "a whole number of 64 bits, not negative",
}


def _explained(reason: str, descriptor: Descriptor, where: str) -> tuple[str, str]:
    """Path of what is wrong, and what is allowed there, from what the JSON mapping says is wrong."""
    path = [where] if where else []
    field: FieldDescriptor | None = None
    inner: Descriptor | None = descriptor
    while found := _WRAPPED.match(reason):
        field = inner.fields_by_name.get(found[1]) if inner is not None else None
        if field is None:
            break
        inner = field.message_type
        path.append(found[1])
        reason = reason[found.end() :]
    if unknown := _UNKNOWN.match(reason):
        known = ", ".join(one.name for one in inner.fields) if inner is not None else ""
        name = _cut(unknown[1])
        return ".".join([*path, name]), f"there is no field {name!r} here; there are {known}"
    at = ".".join(path)
    return at, f"{at or 'the body'} must be {_kind(field)}"


def _kind(field: FieldDescriptor | None) -> str:
    if field is None:
        return "an object with the fields of the message"
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return f"an object whose values are each {_KINDS[field.message_type.fields_by_name['value'].cpp_type]}"
    kind = _KINDS.get(field.cpp_type, "another value")
    return f"an array whose elements are each {kind}" if field.is_repeated else kind


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


def _invalid(field: str, description: str) -> InvalidRequestError:
    return InvalidRequestError([Violation(field, description)])
