"""Requests as they travel, into the core's form. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from headrace.gateway.errors import InvalidRequestError, NotFoundError, Violation
from headrace.pipeline import EventError, Pipeline
from headrace.pipeline.events import EventColumns
from headrace.pipeline.schema import check_identity
from headrace.platform.event_codec import CheckedEvent, check_event, suspects
from headrace.v1.event_pb2 import Event
from headrace.v1.prediction_service_pb2 import PredictBatchRequest, PredictOptions

MAX_BATCH_EVENTS = 4096
MAX_VIOLATIONS = 20
MAX_OVERRIDES = 1000
SPARE_FIELDS = 16
"""Named fields or columns beyond the schema's that are looked at, to name what is wrong; more are only counted."""


def check_pipeline(named: str, deployed: str) -> None:
    """Check the pipeline that a request names.

    Raises:
        NotFoundError: it is another one than this gateway serves.
    """
    if named and named != deployed:
        raise NotFoundError(f"pipeline {named!r} is not served here; this gateway serves {deployed!r}")


def check_options(options: PredictOptions) -> None:
    """Check what can be checked without the pipeline.

    Raises:
        InvalidRequestError: an override that is not finite, or too many of them.
    """
    if len(options.overrides) > MAX_OVERRIDES:
        raise InvalidRequestError(
            [Violation("options.overrides", f"{len(options.overrides)} overrides; at most {MAX_OVERRIDES} are allowed")]
        )
    wrong = [
        Violation(f"options.overrides.{name}", f"{name} is {value}; it must be finite")
        for name, value in options.overrides.items()
        if not math.isfinite(value)
    ]
    if wrong:
        raise InvalidRequestError(wrong[:MAX_VIOLATIONS])


def checked_event(pipeline: Pipeline, event: Event) -> CheckedEvent:
    """An event that follows the schema.

    Raises:
        InvalidRequestError: names the field and what is allowed.
    """
    if not event.schema_fingerprint and len(event.fields.fields) > len(pipeline.event.fields) + SPARE_FIELDS:
        raise _too_many("event.fields", "fields", len(event.fields.fields), pipeline)
    try:
        return check_event(pipeline, event)
    except EventError as error:
        raise InvalidRequestError([_violation(error, "event")]) from error


def checked_batch(pipeline: Pipeline, request: PredictBatchRequest) -> EventColumns:
    """The events of a batch.

    Raises:
        InvalidRequestError: names the index and field of each event at fault, at most 20 of them.
    """
    count = len(request.event_ids)
    if not 1 <= count <= MAX_BATCH_EVENTS:
        raise InvalidRequestError(
            [Violation("event_ids", f"{count} events; allowed are 1 to {MAX_BATCH_EVENTS} in a call")]
        )
    if len(request.columns) > len(pipeline.event.fields) + SPARE_FIELDS:
        raise _too_many("columns", "columns", len(request.columns), pipeline)
    wrong = list(_shape_violations(pipeline, request, count))
    if wrong:
        raise InvalidRequestError(wrong)
    given = {column.name: column for column in request.columns}
    schema = pipeline.event
    texts = [list(given[field.name].texts) if field.name in given else [""] * count for field in schema.texts]
    numbers = [
        list(given[field.name].numbers) if field.name in given else [math.nan] * count for field in schema.numbers
    ]
    columns = EventColumns(
        list(request.event_ids),
        np.array(request.event_times_us, np.int64),
        {field.name: values for field, values in zip(schema.texts, texts, strict=True)},
        {field.name: np.array(values, np.float64) for field, values in zip(schema.numbers, numbers, strict=True)},
    )
    for row in suspects(schema, columns):
        try:
            check_identity(columns.ids[row], int(columns.times[row]))
            schema.check([values[row] for values in texts], [values[row] for values in numbers])
        except EventError as error:
            wrong.append(_violation(error, f"events[{row}]"))
            if len(wrong) == MAX_VIOLATIONS:
                break
    if wrong:
        raise InvalidRequestError(wrong)
    return columns


def _shape_violations(pipeline: Pipeline, request: PredictBatchRequest, count: int) -> Iterable[Violation]:
    if len(request.event_times_us) != count:
        yield Violation("event_times_us", f"{len(request.event_times_us)} times for {count} events")
    seen: set[str] = set()
    for column in request.columns:
        field = pipeline.event.by_name.get(column.name)
        where = f"columns.{column.name}"
        if field is None:
            known = ", ".join(pipeline.event.by_name)
            yield Violation(where, f"{column.name} is not a field of this pipeline; known are {known}")
            continue
        if column.name in seen:
            yield Violation(where, f"{column.name} comes twice")
        seen.add(column.name)
        used, other = (column.texts, column.numbers) if field.kind == "text" else (column.numbers, column.texts)
        if len(used) != count or other:
            kind = "texts" if field.kind == "text" else "numbers"
            yield Violation(where, f"{column.name} needs {count} {kind} and nothing else, one for each event")
    for field in pipeline.event.fields:
        if field.name not in seen and not field.optional:
            yield Violation(f"columns.{field.name}", f"{field.name} is missing; it is required")


def _too_many(where: str, what: str, count: int, pipeline: Pipeline) -> InvalidRequestError:
    text = f"{count} {what}; the schema of this pipeline has {len(pipeline.event.fields)}"
    return InvalidRequestError([Violation(where, text)])


def _violation(error: EventError, where: str) -> Violation:
    if error.field in {"", "event_id", "event_time_us", "schema_fingerprint"}:
        field = f"{where}.{error.field}".rstrip(".")
    else:
        field = f"{where}.fields.{error.field}"
    return Violation(field, error.detail)
