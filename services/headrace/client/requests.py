"""Requests from plain Python values. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from headrace.client.violations import InvalidInputError, Violation
from headrace.v1.event_pb2 import Event
from headrace.v1.prediction_service_pb2 import Column, PredictBatchRequest, PredictOptions

if TYPE_CHECKING:
    from headrace.client.deadlines import Deadline

FieldValue = str | float | int | bool | None
"""None is an optional field that is absent."""
Time = dt.datetime | int
"""An aware datetime, or whole microseconds since 1970-01-01 UTC."""
Times = Sequence[Time] | NDArray[np.int64]
ColumnValues = Sequence[FieldValue] | NDArray[Any]
"""One value per event; in an array NaN is absent."""

MAX_BATCH_EVENTS = 4096

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)


class Timing(TypedDict, total=False):
    """When a call must have ended; the earlier of the two where both are given."""

    timeout_s: float
    """Seconds from now; the client's own where this is left out."""
    deadline: Deadline
    """A point in time, which several calls may share."""


class CallOptions(Timing, total=False):
    """What may be asked for beside the score."""

    ingest: bool
    """Also append the event to `events`; it updates the features and is not scored a second time."""
    explain: bool
    """Return the features that the model was given."""
    overrides: Mapping[str, float]
    """Values to use instead of computed features, by name."""
    model_version: str
    """The version to use; empty for the routed one."""


@dataclass(frozen=True, slots=True)
class EventInput:
    """One event to score.

    Attributes:
        event_id: its id; the same id again gets the first answer again.
        time: when it happened.
        fields: its fields by name, as the pipeline's schema says.
    """

    event_id: str
    time: Time
    fields: Mapping[str, FieldValue] = field(default_factory=dict)

    def message(self) -> Event:
        """As it travels by names.

        Raises:
            InvalidInputError: a time without a zone, or a value that no field can have.
        """
        event = Event(event_id=self.event_id, event_time_us=microseconds(self.time))
        try:
            event.fields.update({name: value for name, value in self.fields.items() if value is not None})
        except ValueError as error:
            raise InvalidInputError(
                [Violation("event.fields", f"{error}; allowed are text, numbers, booleans")]
            ) from None
        return event


AnyEvent = EventInput | Event
"""An event of plain values, or the message itself, sent as it is."""


def microseconds(time: Time) -> int:
    """Microseconds since 1970-01-01 UTC.

    Raises:
        InvalidInputError: a datetime without a time zone.
    """
    if isinstance(time, int):
        return time
    if time.tzinfo is None:
        raise InvalidInputError([Violation("event_time_us", f"{time} has no time zone; an event time must be aware")])
    return (time - _EPOCH) // _MICROSECOND


def predict_options(asked: CallOptions) -> PredictOptions:
    """The options as they travel."""
    return PredictOptions(
        ingest=asked.get("ingest", False),
        explain=asked.get("explain", False),
        overrides=asked.get("overrides"),
        model_version=asked.get("model_version", ""),
    )


def batch_request(
    pipeline: str,
    event_ids: Sequence[str],
    times: Times,
    columns: Mapping[str, ColumnValues],
    options: PredictOptions,
) -> PredictBatchRequest:
    """For `PredictBatch`: one column per field, text columns from strings, others from numbers and booleans.

    Raises:
        InvalidInputError: a column mixes text and numbers or has a wrong length, or a time has no zone.
    """
    if len(times) != len(event_ids):
        raise InvalidInputError([Violation("event_times_us", f"{len(times)} times for {len(event_ids)} events")])
    for name, values in columns.items():
        if len(values) != len(event_ids):
            problem = f"{len(values)} values for {len(event_ids)} events"
            raise InvalidInputError([Violation(f"columns.{name}", problem)])
    return PredictBatchRequest(
        pipeline=pipeline,
        event_ids=event_ids,
        event_times_us=times if isinstance(times, np.ndarray) else [microseconds(time) for time in times],
        columns=[_column(name, values) for name, values in columns.items()],
        options=options,
    )


def _column(name: str, values: ColumnValues) -> Column:
    if isinstance(values, np.ndarray):
        if values.dtype.kind in "biuf":
            return Column(name=name, numbers=values)
        values = values.tolist()
    is_text = any(isinstance(value, str) for value in values)
    absent: FieldValue = "" if is_text else float("nan")
    given = [absent if value is None else value for value in values]
    if is_text and not all(isinstance(value, str) for value in given):
        raise InvalidInputError([Violation(f"columns.{name}", f"column {name!r} mixes text and numbers")])
    if is_text:
        return Column(name=name, texts=[str(value) for value in given])
    return Column(name=name, numbers=[float(value) for value in given if value is not None])
