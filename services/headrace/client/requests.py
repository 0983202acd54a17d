"""Requests from plain Python values. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from headrace.v1.event_pb2 import Event
from headrace.v1.prediction_service_pb2 import (
    Column,
    GetFeaturesRequest,
    PredictBatchRequest,
    PredictOptions,
    PredictRequest,
)

FieldValue = str | float | int | bool
Time = dt.datetime | int
"""An aware datetime, or whole microseconds since 1970-01-01 UTC."""

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
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
        """As it travels."""
        event = Event(event_id=self.event_id, event_time_us=microseconds(self.time))
        event.fields.update(dict(self.fields))
        return event


def microseconds(time: Time) -> int:
    """Microseconds since 1970-01-01 UTC.

    Raises:
        ValueError: a datetime without a time zone.
    """
    if isinstance(time, int):
        return time
    if time.tzinfo is None:
        raise ValueError(f"{time} has no time zone; an event time must be aware")
    return (time - _EPOCH) // dt.timedelta(microseconds=1)


def options(
    *, ingest: bool, explain: bool, overrides: Mapping[str, float] | None, model_version: str
) -> PredictOptions:
    """What a caller asks for beside the score."""
    return PredictOptions(ingest=ingest, explain=explain, overrides=overrides, model_version=model_version)


def predict_request(pipeline: str, event: EventInput, asked: PredictOptions) -> PredictRequest:
    """For `Predict` and `StreamPredict`."""
    return PredictRequest(pipeline=pipeline, event=event.message(), options=asked)


def features_request(pipeline: str, event: EventInput) -> GetFeaturesRequest:
    """For `GetFeatures`."""
    return GetFeaturesRequest(pipeline=pipeline, event=event.message())


def batch_request(
    pipeline: str,
    event_ids: Sequence[str],
    times: Sequence[Time],
    columns: Mapping[str, Sequence[FieldValue]],
    asked: PredictOptions,
) -> PredictBatchRequest:
    """For `PredictBatch`: one column per field, text columns from strings, others from numbers and booleans."""
    return PredictBatchRequest(
        pipeline=pipeline,
        event_ids=event_ids,
        event_times_us=[microseconds(time) for time in times],
        columns=[_column(name, values) for name, values in columns.items()],
        options=asked,
    )


def _column(name: str, values: Sequence[FieldValue]) -> Column:
    texts = [value for value in values if isinstance(value, str)]
    if texts and len(texts) != len(values):
        raise ValueError(f"column {name!r} mixes text and numbers")
    if texts:
        return Column(name=name, texts=texts)
    return Column(name=name, numbers=[float(value) for value in values])
