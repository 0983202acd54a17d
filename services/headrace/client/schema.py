"""The schema of a pipeline's events at the caller: checks them, and packs them as they travel cheapest. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.client.requests import AnyEvent, FieldValue, microseconds
from headrace.client.violations import InvalidInputError, Violation
from headrace.pipeline import EventError, Pipeline
from headrace.pipeline.schema import EventSchema, Field, Kind, check_identity
from headrace.v1.event_pb2 import Event
from headrace.v1.prediction_service_pb2 import (
    FIELD_KIND_BOOLEAN,
    FIELD_KIND_INTEGER,
    FIELD_KIND_NUMBER,
    FIELD_KIND_TEXT,
    DescribePipelineResponse,
)

if TYPE_CHECKING:
    from headrace.v1.prediction_service_pb2 import FieldKind

_KINDS: Mapping[FieldKind.ValueType, Kind] = {
    FIELD_KIND_TEXT: "text",
    FIELD_KIND_INTEGER: "integer",
    FIELD_KIND_NUMBER: "number",
    FIELD_KIND_BOOLEAN: "boolean",
}


class Schema:
    """The fields of an event as the gateway checks them.

    Take it from a declaration (`Schema.of(load_pipeline("pipelines/fraud.py"))`) or from a gateway
    (`client.fetch_schema()`).

    Args:
        event: the fields, in order.
        fingerprint: of the schema, 64 bits.
        pipeline: deployed name; empty where it is not known.
        feature_names: in vector order.
    """

    def __init__(
        self, event: EventSchema, fingerprint: int, *, pipeline: str = "", feature_names: Sequence[str] = ()
    ) -> None:
        self.event = event
        self.fingerprint = fingerprint
        self.pipeline = pipeline
        self.feature_names = tuple(feature_names)

    @classmethod
    def of(cls, pipeline: Pipeline) -> Schema:
        """The schema of a declaration."""
        return cls(pipeline.event, pipeline.schema_fingerprint, feature_names=pipeline.feature_names)

    @classmethod
    def described(cls, answer: DescribePipelineResponse) -> Schema:
        """The schema that a gateway describes.

        Raises:
            ValueError: a kind of field that this client does not know.
        """
        fields = []
        for one in answer.fields:
            if one.kind not in _KINDS:
                raise ValueError(f"field {one.name} is of a kind ({one.kind}) that this version of the client lacks")
            kind = _KINDS[one.kind]
            minimum, maximum = _bound(kind, one.minimum), _bound(kind, one.maximum)
            fields.append(Field(one.name, kind, minimum, maximum, one.max_bytes, one.optional, one.scale))
        return cls(
            EventSchema(*fields),
            answer.schema_fingerprint,
            pipeline=answer.pipeline,
            feature_names=answer.feature_names,
        )

    def pack(self, event: AnyEvent) -> Event:
        """The packed message of an event; a message is returned as it is.

        Raises:
            InvalidInputError: the gateway would refuse it; names the field and what is allowed.
        """
        if isinstance(event, Event):
            return event
        time_us = microseconds(event.time)
        try:
            check_identity(event.event_id, time_us)
            texts, numbers = self.event.pack(event.fields)
        except EventError as error:
            raise InvalidInputError([_violation(error, "event")]) from None
        return Event(
            event_id=event.event_id,
            event_time_us=time_us,
            schema_fingerprint=self.fingerprint,
            texts=texts,
            numbers=numbers,
        )

    def columns(self, events: Sequence[Event]) -> dict[str, Sequence[Any]]:
        """Packed events as one column per field."""
        texts = zip(*(event.texts for event in events), strict=True)
        numbers = zip(*(event.numbers for event in events), strict=True)
        names = [field.name for field in (*self.event.texts, *self.event.numbers)]
        return dict(zip(names, (*texts, *numbers), strict=True))


def first_wrong(field: Field, values: np.ndarray[Any, Any]) -> int | None:
    """The first row of n numbers that breaks the schema; None where all follow it.

    Args:
        field: any but a text field.
        values: shape (n,), integers, floats or booleans; NaN is absent.
    """
    if values.dtype.kind == "f":
        absent = np.isnan(values)
        right = (values >= field.minimum) & (values <= field.maximum) & np.isfinite(values)
        if field.kind == "integer":
            right &= values == np.floor(values)
        if field.kind == "boolean":
            right &= (values == 0) | (values == 1)
        right |= absent & field.optional
    elif values.dtype.kind == "b":
        return None if field.kind == "boolean" or not len(values) else 0
    else:
        # Bounds as integers: a float would round what lies just beyond 2^53.
        low = -math.inf if math.isinf(field.minimum) else math.ceil(field.minimum)
        high = math.inf if math.isinf(field.maximum) else math.floor(field.maximum)
        right = (values >= low) & (values <= high)
    wrong = np.flatnonzero(~right)
    return int(wrong[0]) if len(wrong) else None


def problem(field: Field, value: FieldValue) -> str:
    """What is wrong with a value, in the words of the schema; empty where it is right."""
    try:
        if field.kind == "text":
            field.check_text("" if value is None else value)
        else:
            field.check_number(math.nan if value is None else value)
    except EventError as error:
        return error.detail
    return ""


def _bound(kind: Kind, value: float) -> float:
    """A bound as it was declared: whole for whole numbers."""
    return int(value) if kind in {"integer", "boolean"} and math.isfinite(value) else value


def _violation(error: EventError, where: str) -> Violation:
    if error.field in {"", "event_id", "event_time_us"}:
        return Violation(f"{where}.{error.field}".rstrip("."), error.detail)
    return Violation(f"{where}.fields.{error.field}", error.detail)
