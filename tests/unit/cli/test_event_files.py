"""Files of events, what is wrong in them, and answers as they are written."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import math
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from headrace.cli.errors import UserError
from headrace.cli.event_files import RowError, format_of, read_events, time_of
from headrace.cli.predict_output import writer
from headrace.client import EventInput, Schema
from headrace.pipeline.schema import Boolean, EventSchema, Integer, Number, Text
from headrace.v1.prediction_pb2 import DEGRADATION_FEATURES_DEFAULTED, ROLE_REPEAT, ROUTE_CANARY
from headrace.v1.prediction_service_pb2 import PredictResponse

SCHEMA = Schema(
    EventSchema(Text("customer"), Integer("cents"), Number("ratio", optional=True), Boolean("online", optional=True)), 7
)
NOON = dt.datetime(2020, 9, 13, 12, 26, 40, tzinfo=dt.UTC)


def read(path: Path, **columns: str) -> list[Any]:
    form = format_of(str(path), "")
    found = read_events(str(path), form, SCHEMA, columns.get("id", "event_id"), columns.get("time", "event_time"))
    return [(where, str(one) if isinstance(one, RowError) else one) for where, one in found]


def test_csv_is_typed_by_the_schema(tmp_path: Path) -> None:
    file = tmp_path / "events.CSV"
    file.write_text(
        "\ufeffevent_id,event_time,customer,cents,ratio,online\n"
        'a,2020-09-13T12:26:40Z,"0,7",12,0.5,true\n'
        "b,1600000000000000,1,1e2,,\n"
        "c,2020-09-13T12:26:40Z,1,many,,\n"
        "d,2020-09-13T12:26:40Z,1,1,,perhaps\n"
        "e,2020-09-13,1,1,,\n"
        "f,,1,1,,\n"
        "g\n"
    )
    fields: dict[str, Any] = {"customer": "0,7", "cents": 12, "ratio": 0.5, "online": True}
    assert read(file) == [
        ("line 2", EventInput("a", NOON, fields)),
        (
            "line 3",
            EventInput("b", 1_600_000_000_000_000, {"customer": "1", "cents": 100.0, "ratio": None, "online": None}),
        ),
        ("line 4", "cents is 'many'; it must be a number"),
        ("line 5", "online is 'perhaps'; it must be true or false"),
        ("line 6", "'2020-09-13' has no zone; add Z for UTC"),
        ("line 7", "'' is not an ISO 8601 time, for example 2026-01-31T12:00:00Z"),
        ("line 8", "has another number of values than the first line"),
    ]


def test_json_lines_are_rows_or_messages(tmp_path: Path) -> None:
    file = tmp_path / "events.ndjson"
    lines: list[Any] = [
        {"id": "a", "at": "2020-09-13T12:26:40+00:00", "customer": "c", "cents": 1},
        {"eventId": "b", "eventTimeUs": "17", "fields": {"customer": "c"}},
        {"id": 7, "at": 5},
        {"at": 5},
        {"id": "a"},
        {"id": True, "at": 5},
        [1],
    ]
    file.write_text("\n\n".join(map(json.dumps, lines)) + "\nnonsense")
    assert read(file, id="id", time="at") == [
        ("line 1", EventInput("a", NOON, {"customer": "c", "cents": 1})),
        ("line 3", EventInput("b", 17, {"customer": "c"})),
        ("line 5", EventInput("7", 5, {})),
        ("line 7", "the event id is missing"),
        ("line 9", "at is missing"),
        ("line 11", "the event id is True; it must be text"),
        ("line 13", "not a JSON object"),
        ("line 14", "not JSON: Expecting value: line 1 column 1 (char 0)"),
    ]


def test_parquet_is_typed_already(tmp_path: Path) -> None:
    file = tmp_path / "events.parquet"
    pl.DataFrame({"event_id": ["a", None], "event_time": [NOON, NOON], "cents": [1, None]}).write_parquet(file)
    assert read(file) == [("row 0", EventInput("a", NOON, {"cents": 1})), ("row 1", "the event id is missing")]


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("events.csv", None, "cannot be read: No such file"),
        ("events.parquet", None, "cannot be read: "),
        ("events.parquet", "no parquet", "cannot be read: "),
        ("events.csv", "", "has no column event_id (--id-column); there are none"),
        ("events.csv", "event_id,when\n", "has no column event_time (--time-column); there are event_id, when"),
        ("events.csv", b"event_id,event_time\n\xff,1\n", "is not UTF-8 text"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_in_a_line(
    tmp_path: Path, name: str, content: str | bytes | None, what: str
) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as caught:
        read(file)
    assert str(file) in str(caught.value)
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_format_is_given_or_told_by_the_name() -> None:
    assert format_of("-", "") == "jsonl"
    assert format_of("events.txt", "csv") == "csv"
    with pytest.raises(UserError, match="say by --format"):
        format_of("events.txt", "")
    with pytest.raises(ValueError, match="has no zone"):
        time_of("2020-09-13T12:26:40")


def answer(event_id: str) -> PredictResponse:
    return PredictResponse(
        event_id=event_id,
        prediction_id="p",
        score=0.25,
        decision="accept",
        model_version="7",
        route=ROUTE_CANARY,
        role=ROLE_REPEAT,
        degradations=[DEGRADATION_FEATURES_DEFAULTED],
        features_age_ms=12,
        features=[1.5, math.nan],
        feature_names=["amount", "night"],
    )


def written(form: str) -> str:
    file = io.StringIO()
    write = writer(form, file)
    write(answer("a"))
    write(answer("b"))
    return file.getvalue()


def test_answers_are_lines_rows_or_a_table() -> None:
    lines = [json.loads(line) for line in written("jsonl").splitlines()]
    assert [one["event_id"] for one in lines] == ["a", "b"]
    assert lines[0]["features"] == {"amount": 1.5, "night": None}
    assert (lines[0]["route"], lines[0]["role"], lines[0]["degradations"]) == (
        "canary",
        "repeat",
        ["features_defaulted"],
    )
    rows = list(csv.DictReader(io.StringIO(written("csv"))))
    assert [one["event_id"] for one in rows] == ["a", "b"]
    assert (rows[0]["score"], rows[0]["degradations"], rows[0]["feature_amount"]) == (
        "0.25",
        "features_defaulted",
        "1.5",
    )
    table = written("table").splitlines()
    assert table[0].startswith("EVENT ID ")
    assert table[1].split() == ["a", "0.250000", "accept", "7", "canary", "repeat", "features_defaulted", "12"]
    assert table[2].split() == ["amount", "1.5"]
    assert table[3].split() == ["night", "-"]
