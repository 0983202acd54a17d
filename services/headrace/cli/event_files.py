"""Events from JSON lines, CSV and Parquet, row by row, each with its place for a person."""

from __future__ import annotations

import csv
import datetime as dt
import itertools
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from headrace.cli.errors import UserError
from headrace.client import EventInput, Schema
from headrace.client.requests import FieldValue, Time

FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".parquet": "parquet"}
STANDARD_INPUT = "-"
PARQUET_ROWS = 65_536
"""Rows that are held at once."""


class RowError(Exception):
    """A row is no event; the message says why."""


Row = tuple[str, EventInput | RowError]
"""Where it is ("line 3", "row 7") and what it is."""


def format_of(path: str, given: str) -> str:
    """The format of a file: the one that is given, else by its name; standard input has JSON lines.

    Raises:
        UserError: the name does not tell.
    """
    if given:
        return given
    if path == STANDARD_INPUT:
        return "jsonl"
    known = FORMATS.get(Path(path).suffix.lower())
    if known is None:
        raise UserError(f"{path}: say by --format whether it is jsonl, csv or parquet")
    return known


def read_events(path: str, form: str, schema: Schema, id_column: str, time_column: str) -> Iterator[Row]:
    """The events of a file.

    Args:
        path: of the file, "-" for standard input.
        form: "jsonl", "csv" or "parquet".
        schema: says what the texts of a CSV file are.
        id_column: has the event ids.
        time_column: has the times: ISO 8601 with a zone, or microseconds since 1970-01-01 UTC.

    Raises:
        UserError: the file cannot be read or lacks a column.
    """
    if form == "parquet":
        yield from _parquet(path, id_column, time_column)
        return
    with _opened(path) as file:
        if form == "csv":
            yield from _csv(path, file, schema, id_column, time_column)
        else:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"line {number}", _caught(_json_event, line, id_column, time_column)


def time_of(text: str) -> dt.datetime | int:
    """An event time as people write it.

    Raises:
        ValueError: neither ISO 8601 with a zone nor whole microseconds.
    """
    if text.strip().lstrip("-").isdecimal():
        return int(text)
    try:
        time = dt.datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not an ISO 8601 time, for example 2026-01-31T12:00:00Z") from None
    if time.tzinfo is None:
        raise ValueError(f"{text!r} has no zone; add Z for UTC")
    return time


@contextmanager
def _opened(path: str) -> Iterator[IO[str]]:
    if path == STANDARD_INPUT:
        yield _standard_input()
        return
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            yield file
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error}") from error


def _standard_input() -> IO[str]:
    try:
        # A reader of its own: Python aborts at its end where another thread still waits in sys.stdin.
        return open(os.dup(sys.stdin.fileno()), encoding="utf-8")  # noqa: PTH123 (a number, and never closed)
    except (OSError, ValueError):
        return sys.stdin


def _caught(read: Any, *arguments: Any) -> EventInput | RowError:
    try:
        made: EventInput = read(*arguments)
    except (ValueError, TypeError) as error:
        return RowError(str(error))
    return made


def _json_event(line: str, id_column: str, time_column: str) -> EventInput:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(found, dict):
        raise TypeError("not a JSON object")
    if isinstance(found.get("fields"), dict):
        # The JSON form of the message, as producers publish it.
        event_id = found.get("eventId", found.get("event_id"))
        time = found.get("eventTimeUs", found.get("event_time_us"))
        return EventInput(_id(event_id), _time(time), found["fields"])
    return _event(found, id_column, time_column)


def _event(row: Mapping[str, Any], id_column: str, time_column: str) -> EventInput:
    fields = {name: value for name, value in row.items() if name not in {id_column, time_column}}
    return EventInput(_id(row.get(id_column)), _time(row.get(time_column), time_column), fields)


def _id(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise TypeError("the event id is missing" if value is None else f"the event id is {value!r}; it must be text")
    return value


def _time(value: object, name: str = "the event time") -> Time:
    if isinstance(value, str):
        return time_of(value)
    if isinstance(value, dt.datetime):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise TypeError(f"{name} is missing" if value is None else f"{name} is {value!r}; it must be a time")


def _csv(path: str, file: IO[str], schema: Schema, id_column: str, time_column: str) -> Iterator[Row]:
    reader = csv.DictReader(file)
    try:
        _check_columns(path, reader.fieldnames or (), id_column, time_column)
        for row in reader:
            yield f"line {reader.line_num}", _caught(_csv_event, row, schema, id_column, time_column)
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}") from error


def _csv_event(row: dict[str | None, Any], schema: Schema, id_column: str, time_column: str) -> EventInput:
    if None in row or None in row.values():
        raise ValueError("has another number of values than the first line")
    typed: dict[str, FieldValue] = {}
    for name, text in row.items():
        assert name is not None
        field = schema.event.by_name.get(name)
        typed[name] = text if field is None or name in {id_column, time_column} else _typed(field.kind, name, text)
    return _event(typed, id_column, time_column)


def _typed(kind: str, name: str, text: str) -> FieldValue:
    if kind == "text":
        return text
    if not text.strip():
        return None
    if kind == "boolean":
        known = {"true": True, "1": True, "false": False, "0": False}.get(text.strip().lower())
        if known is None:
            raise ValueError(f"{name} is {text!r}; it must be true or false")
        return known
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{name} is {text!r}; it must be a number") from None


def _parquet(path: str, id_column: str, time_column: str) -> Iterator[Row]:
    try:
        import polars as pl
        from polars.exceptions import PolarsError
    except ModuleNotFoundError as error:
        raise UserError(f"{path}: Parquet needs polars, which is not installed") from error
    if path == STANDARD_INPUT:
        raise UserError("Parquet is read from a file, not from standard input")
    try:
        frame = pl.scan_parquet(path)
        _check_columns(path, frame.collect_schema().names(), id_column, time_column)
        for start in itertools.count(step=PARQUET_ROWS):
            part = frame.slice(start, PARQUET_ROWS).collect()
            for number, row in enumerate(part.iter_rows(named=True), start):
                yield f"row {number}", _caught(_event, row, id_column, time_column)
            if part.height < PARQUET_ROWS:
                return
    except (OSError, PolarsError) as error:
        raise UserError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error


def _check_columns(path: str, names: Any, id_column: str, time_column: str) -> None:
    for option, name in (("--id-column", id_column), ("--time-column", time_column)):
        if name not in names:
            there = ", ".join(names) or "none"
            raise UserError(f"{path} has no column {name} ({option}); there are {there}")
