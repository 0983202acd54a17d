"""What is wrong with a file is said in one line that names the file, the column, the row and what is allowed."""

from __future__ import annotations

import datetime as dt
import math
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from headrace.offline.errors import TableError
from headrace.offline.event_table import TIME, EventFile
from headrace.offline.label_table import VALUE, LabelFile
from headrace.offline.parquet_file import ParquetFile
from headrace.pipeline import Label
from tests.unit.offline.pipelines import small

GOOD: dict[str, list[Any]] = {
    "event_id": ["a", "b"],
    "event_time": [1, 2],
    "customer": ["c", "c"],
    "terminal": ["t", "t"],
    "cents": [100, 200],
    "weight": [0.5, 1.5],
}


def read(path: Path, **changed: Any) -> pl.DataFrame:
    columns = {name: value for name, value in (GOOD | changed).items() if value is not None}
    pl.DataFrame(columns, strict=False).write_parquet(path)
    events = EventFile(ParquetFile(path), small.event)
    events.check()
    return events.block(0, 10)


def test_optional_fields_may_be_absent(tmp_path: Path) -> None:
    table = read(tmp_path / "e.parquet")
    assert table["note"].to_list() == ["", ""]
    assert all(math.isnan(value) for value in table["online"].to_list())


def test_times_may_be_timestamps_of_any_unit_and_zone(tmp_path: Path) -> None:
    moment = dt.datetime(2020, 1, 1, 12, tzinfo=dt.UTC)
    for dtype in (pl.Datetime("ms"), pl.Datetime("ns", "UTC"), pl.Datetime("us", "Europe/Brussels")):
        given = pl.Series([moment, moment]).dt.replace_time_zone(None).cast(pl.Datetime(dtype.time_unit))
        if dtype.time_zone:
            given = given.dt.replace_time_zone("UTC").dt.convert_time_zone(dtype.time_zone)
        assert read(tmp_path / "e.parquet", event_time=given)[TIME].to_list() == [1_577_880_000_000_000] * 2


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"cents": None}, "column cents: is missing; the file has event_id, event_time, customer, terminal, weight"),
        ({"customer": [1, 2]}, "column customer: has the type Int64; allowed is text"),
        ({"cents": ["1", "2"]}, "column cents: has the type String; allowed is a number"),
        ({"cents": [1, 10_001]}, "column cents, row 2: cents is 10001; allowed is 0 to 10000"),
        ({"cents": [1.5, 2]}, "column cents, row 1: cents is 1.5; it must be a whole number"),
        ({"weight": [0.0, math.nan]}, "column weight, row 2: weight is NaN or missing; a number is required"),
        ({"weight": [0.0, None]}, "column weight, row 2: weight is NaN or missing; a number is required"),
        ({"weight": [0.0, math.inf]}, "column weight, row 2: weight is inf; allowed is -500 to 500"),
        ({"customer": ["c", ""]}, "column customer, row 2: customer is missing; it is required text"),
        ({"customer": ["c", None]}, "column customer, row 2: customer is missing; it is required text"),
        ({"customer": ["c", "c" * 129]}, "column customer, row 2: customer has 129 bytes; at most 128 fit"),
        ({"event_id": ["a", ""]}, "column event_id, row 2: event_id is missing; it is required text"),
        ({"event_time": [1, None]}, "column event_time, row 2: is empty; allowed is a timestamp"),
        ({"event_time": [1, -2]}, "column event_time, row 2: -2 is out of range; allowed are the years 1970 to 2200"),
        ({"event_time": [1.0, 2.0]}, "column event_time: has the type Float64; allowed is a timestamp"),
        ({"online": [1, 0]}, "column online: has the type Int64; allowed is true or false"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(TableError) as error:
        read(tmp_path / "e.parquet", **changed)
    assert str(error.value).startswith(f"{tmp_path / 'e.parquet'}, {said}")


def test_rows_are_counted_over_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "e.parquet"
    pl.DataFrame(GOOD).vstack(pl.DataFrame(GOOD | {"cents": [1, -1]})).write_parquet(path)
    events = EventFile(ParquetFile(path), small.event)
    assert len(events.block(0, 3)) == 3
    with pytest.raises(TableError, match="row 4: cents is -1"):
        events.block(3, 3)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"label": None}, "column label: is missing; the file has event_id, label_time"),
        ({"label": [0, 2]}, "column label, row 2: 2.0 is no label; allowed is 0 or 1"),
        ({"label": ["0", "1"]}, "column label: has the type String; allowed is a number, 0 or 1, or a boolean"),
        ({"event_id": ["a", None]}, "column event_id, row 2: is empty; an id is required"),
        ({"label_time": [0, 1]}, "column label_time, row 1: 0 is out of range; allowed are the years 1970 to 2200"),
    ],
)
def test_a_mistake_in_labels_is_named(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    path = tmp_path / "l.parquet"
    good: dict[str, Any] = {"event_id": ["a", "b"], "label": [0, 1], "label_time": [1, 2]}
    pl.DataFrame({name: value for name, value in (good | changed).items() if value is not None}).write_parquet(path)
    with pytest.raises(TableError) as error:
        read_labels(path)
    assert str(error.value) == f"{path}, {said}"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([17.25, 600.5], "column label, row 2: value is 600.5; allowed is 0 to 600 minutes"),
        ([math.nan, 1.0], "column label, row 1: value is nan; allowed is 0 to 600 minutes"),
        ([None, 1.0], "column label, row 1: None is no label; allowed is a number"),
        (["1", "2"], "column label: has the type String; allowed is a number"),
    ],
)
def test_labels_that_are_numbers_have_bounds(tmp_path: Path, values: list[Any], said: str) -> None:
    path, minutes = tmp_path / "l.parquet", Label(kind="number", minimum=0, maximum=600, unit="minutes")
    good = {"event_id": ["a", "b"], "label": [0.0, 17.25], "label_time": [1, 2]}
    pl.DataFrame(good).write_parquet(path)
    assert LabelFile(ParquetFile(path), minutes).block(0, 10)[VALUE].to_list() == [0.0, 17.25]
    pl.DataFrame(good | {"label": values}).write_parquet(path)
    with pytest.raises(TableError) as error:
        LabelFile(ParquetFile(path), minutes).block(0, 10)
    assert str(error.value) == f"{path}, {said}"


def read_labels(path: Path) -> pl.DataFrame:
    labels = LabelFile(ParquetFile(path))
    labels.check()
    return labels.block(0, 10)


def test_what_is_no_parquet_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    with pytest.raises(TableError, match="there is no such file"):
        EventFile(ParquetFile(path), small.event).check()
    path.write_text("no table")
    with pytest.raises(TableError, match="cannot be read as Parquet"):
        EventFile(ParquetFile(path), small.event).check()
    pl.DataFrame({name: [] for name in GOOD}).write_parquet(path)
    with pytest.raises(TableError, match="has no rows"):
        EventFile(ParquetFile(path), small.event).check()
