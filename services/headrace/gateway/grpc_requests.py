"""gRPC requests into the core's form and answers back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from headrace.gateway.errors import InvalidRequestError, NotFoundError, Violation
from headrace.gateway.requests import age_ms
from headrace.pipeline import EventError, Pipeline
from headrace.platform.event_codec import CheckedEvent, check_event
from headrace.v1.event_pb2 import Event
from headrace.v1.prediction_pb2 import Prediction
from headrace.v1.prediction_service_pb2 import (
    PredictBatchRequest,
    PredictBatchResponse,
    PredictOptions,
    PredictResponse,
)

MAX_BATCH_EVENTS = 4096
MAX_VIOLATIONS = 20


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
        InvalidRequestError: an override that is not finite.
    """
    wrong = [
        Violation(f"options.overrides.{name}", f"{name} is {value}; it must be finite")
        for name, value in options.overrides.items()
        if not math.isfinite(value)
    ]
    if wrong:
        raise InvalidRequestError(wrong)


def checked_event(pipeline: Pipeline, event: Event) -> CheckedEvent:
    """An event that follows the schema.

    Raises:
        InvalidRequestError: names the field and what is allowed.
    """
    try:
        return check_event(pipeline, event)
    except EventError as error:
        raise InvalidRequestError([_violation(error, "event")]) from error


def checked_batch(pipeline: Pipeline, request: PredictBatchRequest) -> list[CheckedEvent]:
    """The events of a batch.

    Raises:
        InvalidRequestError: names the index and field of each event at fault, at most 20 of them.
    """
    count = len(request.event_ids)
    if not 1 <= count <= MAX_BATCH_EVENTS:
        raise InvalidRequestError(
            [Violation("event_ids", f"{count} events; allowed are 1 to {MAX_BATCH_EVENTS} in a call")]
        )
    wrong = list(_shape_violations(pipeline, request, count))
    if wrong:
        raise InvalidRequestError(wrong)
    columns = {column.name: column for column in request.columns}
    texts = [
        list(columns[field.name].texts) if field.name in columns else [""] * count for field in pipeline.event.texts
    ]
    numbers = [
        list(columns[field.name].numbers) if field.name in columns else [math.nan] * count
        for field in pipeline.event.numbers
    ]
    rows_of_texts = list(zip(*texts, strict=True)) if texts else [()] * count
    rows_of_numbers = list(zip(*numbers, strict=True)) if numbers else [()] * count
    events = []
    for i, (event_id, time_us) in enumerate(zip(request.event_ids, request.event_times_us, strict=True)):
        event = Event(
            event_id=event_id,
            event_time_us=time_us,
            schema_fingerprint=pipeline.schema_fingerprint,
            texts=rows_of_texts[i],
            numbers=rows_of_numbers[i],
        )
        try:
            events.append(check_event(pipeline, event))
        except EventError as error:
            wrong.append(_violation(error, f"events[{i}]"))
            if len(wrong) == MAX_VIOLATIONS:
                break
    if wrong:
        raise InvalidRequestError(wrong)
    return events


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


def _violation(error: EventError, where: str) -> Violation:
    if error.field in {"", "event_id", "event_time_us", "schema_fingerprint"}:
        field = f"{where}.{error.field}".rstrip(".")
    else:
        field = f"{where}.fields.{error.field}"
    return Violation(field, error.detail)


def response(prediction: Prediction, feature_names: Sequence[str], *, explain: bool) -> PredictResponse:
    """The answer to one event."""
    answer = PredictResponse(
        event_id=prediction.event_id,
        prediction_id=prediction.prediction_id,
        score=prediction.score,
        decision=prediction.decision,
        model_version=prediction.model_version,
        route=prediction.route,
        role=prediction.role,
        untrained=prediction.untrained,
        degradations=prediction.degradations,
        features_age_ms=age_ms(prediction),
        model_time_us=prediction.model_time_us,
    )
    if explain and prediction.features:
        answer.features.extend(prediction.features)
        answer.feature_names.extend(feature_names)
    return answer


def batch_response(
    predictions: Sequence[Prediction], feature_names: Sequence[str], *, explain: bool
) -> PredictBatchResponse:
    """The answers to a batch."""
    versions: dict[str, int] = {}
    indices = [versions.setdefault(one.model_version, len(versions)) for one in predictions]
    answer = PredictBatchResponse(
        event_ids=[one.event_id for one in predictions],
        prediction_ids=[one.prediction_id for one in predictions],
        scores=[one.score for one in predictions],
        decisions=[one.decision for one in predictions],
        routes=[one.route for one in predictions],
        roles=[one.role for one in predictions],
        model_versions=list(versions),
        model_version_index=indices,
        untrained=[one.untrained for one in predictions],
        degradations=sorted({missing for one in predictions for missing in one.degradations}),
        # The oldest of the batch: no answer is staler than it says.
        features_age_ms=-1 if any(age_ms(one) < 0 for one in predictions) else max(map(age_ms, predictions)),
        model_time_us=min(one.model_time_us for one in predictions),
    )
    if explain:
        width = len(feature_names)
        for one in predictions:
            # Repeats of answers that came from Kafka have none.
            answer.features.extend(one.features or [math.nan] * width)
        answer.feature_names.extend(feature_names)
    return answer
