"""Reading a source of payments, and what is refused."""

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import pytest

from headrace.demo.errors import SourceError
from headrace.demo.payments import load_source


def raw() -> pl.DataFrame:
    """Three payments, the second one the earliest."""
    return pl.DataFrame(
        {
            "TRANSACTION_ID": [10, 11, 12],
            "TX_DATETIME": [
                dt.datetime(2018, 4, 2, 0, 0, 31),
                dt.datetime(2018, 4, 1, 12, 0, 0),
                dt.datetime(2018, 4, 2, 0, 0, 31),
            ],
            "CUSTOMER_ID": [1, 2, 3],
            "TERMINAL_ID": [7, 8, 9],
            "TX_AMOUNT": [57.16, 0.0, 146.0],
            "TX_FRAUD": [0, 1, 0],
            "IGNORED": ["a", None, "c"],
        }
    )


def write(table: pl.DataFrame, path: Path) -> Path:
    if path.suffix == ".csv":
        table.write_csv(path, datetime_format="%Y-%m-%d %H:%M:%S")
    else:
        table.write_parquet(path)
    return path


@pytest.mark.parametrize("name", ["payments.parquet", "payments.csv", "PAYMENTS.CSV"])
def test_a_file_is_sorted_by_time_and_ties_keep_their_order(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if path.suffix == ".CSV":
        write(raw(), tmp_path / "lower.csv").rename(path)
    else:
        write(raw(), path)
    payments = load_source(path)
    assert payments.transaction_id == ["11", "10", "12"]
    assert payments.customer_id == ["2", "1", "3"]
    assert payments.terminal_id == ["8", "7", "9"]
    assert payments.amount_cents.tolist() == [0, 5716, 14600]
    assert payments.amount_cents.dtype == np.int64
    assert payments.fraud.tolist() == [True, False, False]
    assert payments.event_time_us.tolist() == [1522584000000000, 1522627231000000, 1522627231000000]
    assert payments.event_time_us.dtype == np.int64


def test_events_keeps_the_earliest(tmp_path: Path) -> None:
    path = write(raw(), tmp_path / "payments.parquet")
    assert load_source(path, events=2).transaction_id == ["11", "10"]
    assert len(load_source(path, events=50)) == 3


def test_ids_may_be_text_and_stay_as_they_are(tmp_path: Path) -> None:
    table = raw().with_columns(TRANSACTION_ID=pl.Series(["007", "7", "a b"]))
    assert load_source(write(table, tmp_path / "p.csv")).transaction_id == ["7", "007", "a b"]
    assert load_source(write(table, tmp_path / "p.parquet")).transaction_id == ["7", "007", "a b"]


@pytest.mark.parametrize(
    "text",
    [
        "2018-04-01T12:00:00",
        "2018-04-01T12:00:00.000",
        "2018-04-01 12:00:00.000000",
        "2018-04-01T12:00:00Z",
        "2018-04-01 14:00:00+02:00",
        "2018-04-01T14:00:00+0200",
    ],
)
def test_dates_are_utc_unless_they_name_a_zone(tmp_path: Path, text: str) -> None:
    table = raw().with_columns(TX_DATETIME=pl.Series([text, "2018-04-03 00:00:00", "2018-04-03 00:00:00"]))
    assert load_source(write(table, tmp_path / "p.csv")).event_time_us[0] == 1522584000000000


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_any_unit_and_zone_of_a_datetime_column(tmp_path: Path, unit: Literal["ms", "us", "ns"]) -> None:
    zoned = pl.col("TX_DATETIME").dt.cast_time_unit(unit).dt.replace_time_zone("Europe/Paris")
    payments = load_source(write(raw().with_columns(zoned), tmp_path / "p.parquet"))
    assert payments.event_time_us[0] == 1522584000000000 - 2 * 3600 * 1_000_000


def with_value(column: str, values: list[object]) -> Callable[[], pl.DataFrame]:
    return lambda: raw().with_columns(pl.Series(column, values, strict=False))


NO_COLUMN = [
    ("TX_FRAUD", lambda: raw().drop("TX_FRAUD"), "is missing"),
    ("TX_DATETIME", with_value("TX_DATETIME", [1, 2, 3]), "Int64"),
    ("TX_AMOUNT", with_value("TX_AMOUNT", [True, False, True]), "Boolean"),
    ("TRANSACTION_ID", with_value("TRANSACTION_ID", [1.5, 2.5, 3.5]), "Float64"),
]


@pytest.mark.parametrize(("column", "table", "says"), NO_COLUMN)
def test_a_wrong_column_is_named(tmp_path: Path, column: str, table: Callable[[], pl.DataFrame], says: str) -> None:
    with pytest.raises(SourceError, match=says) as refused:
        load_source(write(table(), tmp_path / "p.parquet"))
    assert (refused.value.column, refused.value.row) == (column, None)
    assert "\n" not in str(refused.value)


BAD_ROWS: list[tuple[str, int, list[object], str]] = [
    ("TRANSACTION_ID", 3, [10, 11, 10], "second time"),
    ("TRANSACTION_ID", 2, ["a", " ", "c"], "blank"),
    ("CUSTOMER_ID", 2, [1, None, 3], "is empty"),
    ("TERMINAL_ID", 1, [None, None, 3], "is empty"),
    ("TX_DATETIME", 3, ["2018-04-01 00:00:00", "2018-04-01 00:00:00", "yesterday"], "'yesterday' is no date"),
    ("TX_DATETIME", 1, ["2018-02-30 00:00:00", "2018-04-01 00:00:00", "2018-04-01 00:00:00"], "is no date"),
    ("TX_AMOUNT", 2, [1.0, -0.01, 1.0], "negative"),
    ("TX_AMOUNT", 3, [1.0, 2.0, float("nan")], "not finite"),
    ("TX_AMOUNT", 3, [1.0, 2.0, float("inf")], "not finite"),
    ("TX_AMOUNT", 1, [1e17, 2.0, 3.0], "too large"),
    ("TX_AMOUNT", 2, [1e6, 1000000.01, 3.0], r"allowed is up to 1000000\.00"),
    ("CUSTOMER_ID", 2, ["c" * 128, "é" * 65, "c"], "too long; 128 bytes fit"),
    ("TX_DATETIME", 2, [f"{year}-01-01 00:00:00" for year in (2018, 1969, 2018)], "the years 1970 to 2200"),
    ("TX_DATETIME", 3, [f"{year}-01-01 00:00:00" for year in (2018, 2199, 2201)], "the years 1970 to 2200"),
    ("TX_AMOUNT", 2, ["1.0", "ten", "3.0"], "'ten' is no number"),
    ("TX_FRAUD", 3, [0, 1, 2], "allowed is 0 or 1"),
    ("TX_FRAUD", 1, [-1, 1, 2], "allowed is 0 or 1"),
    ("TX_FRAUD", 2, ["0", "yes", "1"], "'yes' is no number"),
]


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
@pytest.mark.parametrize(("column", "row", "values", "says"), BAD_ROWS)
def test_a_wrong_value_is_named_by_column_and_row(
    tmp_path: Path, suffix: str, column: str, row: int, values: list[object], says: str
) -> None:
    with pytest.raises(SourceError, match=says) as refused:
        load_source(write(with_value(column, values)(), tmp_path / f"p{suffix}"))
    assert (refused.value.column, refused.value.row) == (column, row)
    assert f"column {column}, row {row}" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_is_no_table_of_payments_is_refused(tmp_path: Path) -> None:
    (tmp_path / "nothing.csv").touch()
    (tmp_path / "nothing.parquet").touch()
    (tmp_path / "text.parquet").write_text("not a parquet file")
    (tmp_path / "ragged.csv").write_text(raw().write_csv() + "1,2,3,4,5,6,7,8,9\n")
    (tmp_path / "latin.csv").write_bytes(b"TRANSACTION_ID\n\xe9\n")
    (tmp_path / "folder.csv").mkdir()
    write(raw().head(0), tmp_path / "header.csv")
    (tmp_path / "semicolon.csv").write_text(raw().write_csv(separator=";"))
    for name, says in {
        "nothing.csv": "is empty",
        "nothing.parquet": "cannot be read as parquet",
        "text.parquet": "cannot be read as parquet",
        "ragged.csv": "cannot be read as csv",
        "latin.csv": "cannot be read as csv",
        "folder.csv": "is not a file",
        "header.csv": "has no payments",
        "semicolon.csv": "is missing; the file has TRANSACTION_ID;TX_DATETIME",
        "absent.csv": "does not exist",
        "payments.json": "allowed are .parquet and .csv",
    }.items():
        with pytest.raises(SourceError, match=says) as refused:
            load_source(tmp_path / name)
        assert str(tmp_path / name) in str(refused.value)
        assert "\n" not in str(refused.value)


def test_a_wrong_setting_is_refused() -> None:
    with pytest.raises(SourceError, match="EVENTS: is 0, allowed is 1 or more"):
        load_source(None, events=0)
    with pytest.raises(SourceError, match="SEED: is -1"):
        load_source(None, seed=-1)


def test_without_a_file_the_simulator_pays() -> None:
    payments = load_source(None, events=500, seed=3)
    assert len(payments) == 500
    assert payments.transaction_id[:2] == ["0", "1"]
    assert (np.diff(payments.event_time_us) >= 0).all()
    assert payments.amount_cents.min() >= 0
    assert payments.name == "simulator, seed 3"
