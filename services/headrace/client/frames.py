"""The events of a table, checked, and the answers to them as columns. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.client.requests import MAX_BATCH_EVENTS, CallOptions, batch_request, microseconds
from headrace.client.schema import Schema, first_wrong, problem
from headrace.client.tables import Table
from headrace.client.violations import InvalidInputError, Violation
from headrace.pipeline import EventError
from headrace.pipeline.schema import Field, check_identity
from headrace.v1.prediction_pb2 import Degradation, Role, Route
from headrace.v1.prediction_service_pb2 import PredictBatchRequest, PredictBatchResponse, PredictOptions

ID_COLUMN, TIME_COLUMN, BATCH_ROWS = "event_id", "event_time", 1024


@dataclass(frozen=True)
class FrameEvents:
    """The events of a table, checked and in columns.

    Attributes:
        event_ids: one for each row.
        times_us: event times in microseconds since 1970-01-01 UTC, shape (rows,).
        columns: by field; text as lists, others as arrays in which NaN is absent.
    """

    event_ids: Sequence[str]
    times_us: NDArray[np.int64]
    columns: Mapping[str, Sequence[str] | NDArray[Any]]

    def requests(self, pipeline: str, options: PredictOptions, rows: int) -> Iterator[PredictBatchRequest]:
        """The events cut into calls of so many rows.

        Raises:
            ValueError: not 1 to 4,096.
        """
        if not 1 <= rows <= MAX_BATCH_EVENTS:
            raise ValueError(f"batch_rows is {rows}; allowed are 1 to {MAX_BATCH_EVENTS}")
        for start in range(0, len(self.event_ids), rows):
            cut = slice(start, start + rows)
            columns = {name: values[cut] for name, values in self.columns.items()}
            yield batch_request(pipeline, self.event_ids[cut], self.times_us[cut], columns, options)


def frame_events(
    frame: Table, schema: Schema, *, id_column: str, time_column: str, columns: Mapping[str, str], assume_utc: bool
) -> FrameEvents:
    """The events of a table.

    Args:
        frame: the table; columns that are no field are left out.
        schema: of the events.
        id_column: has the event ids, as text.
        time_column: has the event times: datetimes, or integers in microseconds since 1970-01-01 UTC.
        columns: names of columns by field, where they differ.
        assume_utc: whether datetimes without a zone are UTC.

    Raises:
        InvalidInputError: names the column and the row (from 0), and what is allowed.
    """
    for name in columns:
        if name not in schema.event.by_name:
            known = ", ".join(schema.event.by_name)
            raise _wrong(columns[name], None, f"{name} is not a field of this pipeline; known are {known}")
    event_ids = _ids(frame, id_column)
    times = _times(frame, time_column, assume_utc=assume_utc)
    for row in np.flatnonzero(~((times > 0) & (times < 2**53)))[:1]:
        raise _wrong(time_column, int(row), "the time is missing or not after 1970")
    times_us = times.astype(np.int64)
    if frame.rows:
        # The schema's own words for the latest time that is allowed.
        latest = int(times_us.argmax())
        try:
            check_identity("x", int(times_us[latest]))
        except EventError as error:
            raise _wrong(time_column, latest, error.detail) from None
    found: dict[str, Sequence[str] | NDArray[Any]] = {}
    for field in schema.event.fields:
        column = columns.get(field.name, field.name)
        if column not in frame.names:
            if field.optional:
                continue
            raise _wrong(column, None, f"there is no such column; {field.name} is required")
        found[field.name] = _texts(frame, column, field) if field.kind == "text" else _numbers(frame, column, field)
    return FrameEvents(event_ids, times_us, found)


class FrameOptions(CallOptions, total=False):
    """How a table is scored, beside what may be asked for."""

    id_column: str
    """Has the event ids, as text; "event_id" where this is left out."""
    time_column: str
    """Has the event times, datetimes or integers in microseconds since 1970-01-01 UTC; "event_time" by default."""
    columns: Mapping[str, str]
    """Names of columns by field, where they differ."""
    assume_utc: bool
    """Whether datetimes without a zone are UTC; they are refused by default."""
    batch_rows: int
    """Rows of a call, at most 4,096; 1,024 by default."""


def asked_events(frame: Table, schema: Schema, asked: FrameOptions) -> FrameEvents:
    """The events of a table; see `frame_events`."""
    return frame_events(
        frame,
        schema,
        id_column=asked.get("id_column", ID_COLUMN),
        time_column=asked.get("time_column", TIME_COLUMN),
        columns=asked.get("columns", {}),
        assume_utc=asked.get("assume_utc", False),
    )


def answer_columns(
    id_column: str, answers: Sequence[PredictBatchResponse], *, explain: bool
) -> dict[str, Sequence[Any] | NDArray[Any]]:
    """The answers of several calls as columns.

    Args:
        id_column: name for the event ids.
        answers: in order.
        explain: whether to add the features, each as `feature_<name>`.
    """
    columns: dict[str, Sequence[Any] | NDArray[Any]] = {
        id_column: [one for answer in answers for one in answer.event_ids],
        "score": _joined([np.fromiter(answer.scores, np.float64) for answer in answers]),
        "decision": [one for answer in answers for one in answer.decisions],
        "model_version": [answer.model_versions[i] for answer in answers for i in answer.model_version_index],
        "route": [_word(Route.Name(one)) for answer in answers for one in answer.routes],
        "role": [_word(Role.Name(one)) for answer in answers for one in answer.roles],
        "prediction_id": [one for answer in answers for one in answer.prediction_ids],
        "untrained": _joined([np.fromiter(answer.untrained, np.bool_) for answer in answers]),
        "degradations": [
            text
            for answer in answers
            for text in [",".join(_word(Degradation.Name(one)) for one in answer.degradations)] * len(answer.event_ids)
        ],
        "features_age_ms": _repeated(answers, [answer.features_age_ms for answer in answers]),
        "model_time_us": _repeated(answers, [answer.model_time_us for answer in answers]),
    }
    if explain and answers:
        names = answers[0].feature_names
        features = _joined([np.fromiter(answer.features, np.float64) for answer in answers]).reshape(-1, len(names))
        columns |= {f"feature_{name}": features[:, i].copy() for i, name in enumerate(names)}
    return columns


def _ids(frame: Table, column: str) -> list[str]:
    if column not in frame.names:
        raise _wrong(column, None, "there is no such column; it has the event ids")
    event_ids = frame.values(column)
    for row, event_id in enumerate(event_ids):
        if not isinstance(event_id, str):
            shown = "missing" if event_id is None else f"{event_id!r}"
            raise _wrong(column, row, f"the event id is {shown}; it must be text")
        try:
            check_identity(event_id, 1)
        except EventError as error:
            raise _wrong(column, row, error.detail) from None
    return list(event_ids)


def _times(frame: Table, column: str, *, assume_utc: bool) -> NDArray[Any]:
    if column not in frame.names:
        raise _wrong(column, None, "there is no such column; it has the event times")
    times = frame.times_us(column)
    if times is not None:
        if not frame.zone(column) and not assume_utc:
            raise _wrong(column, None, "the times have no zone; say assume_utc=True where they are UTC")
        return times
    numbers = frame.numbers(column)
    if numbers is not None and numbers.dtype.kind in "iu":
        return numbers
    values = frame.values(column)
    microseconds_of = np.zeros(len(values))
    for row, value in enumerate(values):
        time = value
        if isinstance(time, dt.datetime) and time.tzinfo is None and assume_utc:
            time = time.replace(tzinfo=dt.UTC)
        if not isinstance(time, dt.datetime | int):
            shown = "missing" if value is None else f"{value!r}"
            raise _wrong(column, row, f"the time is {shown}; allowed are datetimes, and microseconds as integers")
        try:
            microseconds_of[row] = microseconds(time)
        except InvalidInputError as error:
            raise _wrong(column, row, error.violations[0].description) from None
    return microseconds_of


def _texts(frame: Table, column: str, field: Field) -> list[str]:
    if frame.rows and frame.numbers(column) is not None:
        given = next((value for value in frame.values(column) if value is not None), None)
        if given is not None:
            shown = f"{field.name} is {given!r}; it must be text"
            raise _wrong(column, frame.values(column).index(given), shown)
    texts = []
    for row, value in enumerate(frame.values(column)):
        text = "" if value is None else value
        wrong = problem(field, text)
        if wrong:
            raise _wrong(column, row, wrong)
        texts.append(text)
    return texts


def _numbers(frame: Table, column: str, field: Field) -> NDArray[Any]:
    numbers = frame.numbers(column)
    if numbers is None:
        values = frame.values(column)
        for row, value in enumerate(values):
            wrong = problem(field, value)
            if wrong:
                raise _wrong(column, row, wrong)
        numbers = np.array([np.nan if value is None else value for value in values], np.float64)
    row_at_fault = first_wrong(field, numbers)
    if row_at_fault is not None:
        raise _wrong(column, row_at_fault, problem(field, numbers[row_at_fault].item()) or "not allowed")
    return numbers


def _joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0)


def _repeated(answers: Sequence[PredictBatchResponse], values: Sequence[int]) -> NDArray[np.int64]:
    return np.repeat(np.array(values, np.int64), [len(answer.event_ids) for answer in answers])


def _word(name: str) -> str:
    """The last words of an enumeration's value: `ROUTE_CHAMPION` is "champion"."""
    return name.partition("_")[2].lower()


def _wrong(column: str, row: int | None, description: str) -> InvalidInputError:
    return InvalidInputError([Violation(f"column {column}" + ("" if row is None else f", row {row}"), description)])
