"""A history as a table: what is read, and how what is wrong is told."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from headrace.demo.errors import RowsError, SourceError
from headrace.demo.history_source import load_history
from headrace.demo.tables import history_of, read_table
from headrace.pipeline import Pipeline
from headrace.platform.pipelines import load_pipeline

HOUR = 3_600_000_000
CLICKS = "pipelines/clicks.py"


@pytest.fixture(scope="module")
def clicks() -> Pipeline:
    return load_pipeline(CLICKS)


def table(**given: list[Any]) -> pl.DataFrame:
    """Two impressions, the later one first; the earlier one is clicked."""
    columns: dict[str, list[Any]] = {
        "event_id": ["b", "a"],
        "event_time": ["2025-03-03T00:00:10Z", "2025-03-03 00:00:05"],
        "user_id": ["u1", "u2"],
        "ad_id": ["a1", "a1"],
        "page_id": ["p1", "p2"],
        "device": ["phone", "desktop"],
        "country": ["DE", "FR"],
        "position": ["1", "2"],
        "dwell_s": ["3.5", "10"],
        "price_cents": ["20", "30"],
        "label": ["", "1"],
        "label_time": ["", "2025-03-03T00:01:05Z"],
    }
    return pl.DataFrame(columns | given)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_a_file_of_any_kind_is_a_history_in_event_order(tmp_path: Path, clicks: Pipeline, suffix: str) -> None:
    path = tmp_path / f"clicks{suffix}"
    written = table()
    if suffix == ".csv":
        written.write_csv(path)
    elif suffix == ".parquet":
        written.write_parquet(path)
    else:
        written.write_ndjson(path)
    history = read_table(path, clicks)
    assert list(history.ids) == ["a", "b"]
    assert history.times.tolist() == [1740960005000000, 1740960010000000]
    assert history.columns.texts["user_id"] == ["u2", "u1"]
    assert history.columns.numbers["dwell_s"].tolist() == [10, 3.5]
    assert history.positive.tolist() == [True, False]
    assert history.labelled.tolist() == [True, False]
    assert history.label_time_us[0] == 1740960065000000
    assert history.in_label_order().tolist() == [0]


def test_without_a_label_time_a_label_is_known_at_the_horizon(clicks: Pipeline) -> None:
    history = history_of("test", table(label=["0", "1"]).drop("label_time"), clicks)
    assert (history.label_time_us - history.times).tolist() == [HOUR, HOUR]
    assert not history_of("test", table().drop("label", "label_time"), clicks).labelled.any()


def test_typed_columns_are_taken_as_they_are(clicks: Pipeline) -> None:
    times = [dt.datetime(2025, 3, 3, 0, 0, 10), dt.datetime(2025, 3, 3, 0, 0, 5)]
    history = history_of(
        "test", table(event_time=times, position=[1, 2], user_id=[7, 8], label=[None, True], label_time=times), clicks
    )
    assert history.columns.texts["user_id"] == ["8", "7"]
    assert history.times[0] == 1740960005000000
    micros = history_of("test", table(event_time=[1740960010000000, 1740960005000000]), clicks)
    assert micros.times.tolist() == [1740960005000000, 1740960010000000]


WRONG: list[tuple[str, list[Any], int, str]] = [
    ("event_id", ["a", "a"], 2, "second time"),
    ("event_id", ["", "a"], 1, "needs an id"),
    ("event_time", ["soon", "2025-03-03T00:00:05Z"], 1, "'soon' is no date"),
    ("event_time", ["2025-03-03T00:00:05Z", ""], 2, "is required"),
    ("event_time", ["1969-01-01T00:00:00Z", "2025-03-03T00:00:05Z"], 1, "1970 to 2200"),
    ("user_id", ["u", ""], 2, "user_id is missing"),
    ("country", ["DE", "FRA"], 2, "country has 3 bytes; at most 2"),
    ("position", ["1", "1.5"], 2, "whole number"),
    ("position", ["0", "1"], 1, "allowed is 1 to 20"),
    ("dwell_s", ["a while", "1"], 1, "'a while'; it must be a number"),
    ("dwell_s", ["1", "inf"], 2, "dwell_s is inf"),
    ("label", ["", "0.5"], 2, "allowed is 0, 1 or nothing"),
    ("label_time", ["", "2025-03-03T00:00:01Z"], 2, "before the event"),
    ("label_time", ["", "2025-03-03T02:00:00Z"], 2, "beyond the horizon"),
]


@pytest.mark.parametrize(("column", "values", "row", "says"), WRONG)
def test_a_wrong_value_is_named_by_column_and_row(
    clicks: Pipeline, column: str, values: list[Any], row: int, says: str
) -> None:
    with pytest.raises(RowsError, match=says) as refused:
        history_of("clicks.csv", table(**{column: values}), clicks)
    assert [(fault.column, fault.row) for fault in refused.value.faults] == [(column, row)]


def test_many_wrong_values_are_counted(clicks: Pipeline) -> None:
    wrong = pl.concat([table()] * 20).with_columns(pl.lit("0").alias("position"), pl.lit("").alias("label"))
    wrong = wrong.with_columns(pl.Series("event_id", [str(row) for row in range(40)]))
    with pytest.raises(RowsError) as refused:
        history_of("clicks.csv", wrong, clicks)
    lines = str(refused.value).splitlines()
    assert len(lines) == 11
    assert lines[-1] == "clicks.csv: 30 more values cannot be used"


def test_a_missing_column_and_a_wrong_file_are_named(tmp_path: Path, clicks: Pipeline) -> None:
    with pytest.raises(SourceError, match="column ad_id: is missing; there are event_id"):
        history_of("clicks.csv", table().drop("ad_id"), clicks)
    with pytest.raises(SourceError, match=r"clicks\.txt: is not a file we read"):
        read_table(tmp_path / "clicks.txt", clicks)
    with pytest.raises(SourceError, match="does not exist"):
        read_table(tmp_path / "clicks.csv", clicks)


def test_the_simulation_beside_a_pipeline_is_its_history(tmp_path: Path, clicks: Pipeline) -> None:
    history = load_history(CLICKS, clicks, None, 2_000, 3)
    again = load_history(CLICKS, clicks, None, 2_000, 3)
    assert len(history) == 2_000
    assert (history.words.events, history.words.positives) == ("impressions", "clicks")
    assert (np.diff(history.times) >= 0).all()
    assert np.array_equal(history.times, again.times)
    assert np.array_equal(history.positive, again.positive)
    assert 0.02 < history.positive.mean() < 0.1
    assert (history.label_time_us[history.labelled] - history.times[history.labelled]).max() < HOUR
    other = load_pipeline(CLICKS)
    (tmp_path / "alone.py").write_text(Path(CLICKS).read_text())
    with pytest.raises(SourceError, match=r"has no simulation.*alone_history\.py"):
        load_history(str(tmp_path / "alone.py"), other, None, 10)
