"""Card payments, the history of the fraud pipeline: a file with the handbook's raw columns, or the simulator.

A file is checked whole before anything is sent. What is wrong with it is told by column and row, because the stream
would set such an event aside later, where it is harder to find.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from headrace.demo.errors import SourceError
from headrace.demo.history import History, Words
from headrace.demo.simulator import Simulation, simulate
from headrace.demo.tables import DATE_ALLOWED, parse_dates
from headrace.pipeline import DAY, EventColumns
from headrace.pipeline.schema import LATEST_TIME_US, MAX_ID_BYTES

COLUMNS = ("TRANSACTION_ID", "TX_DATETIME", "CUSTOMER_ID", "TERMINAL_ID", "TX_AMOUNT", "TX_FRAUD")
SUFFIXES = (".parquet", ".csv")
DEFAULT_EVENTS = 100_000
MAX_AMOUNT_CENTS = 1_000_000_00
"""The largest amount that the fraud pipeline takes, by default."""
LABEL_DELAY = 7 * DAY
"""A charge-back comes a week after its payment."""
LEAST_DAYS = 16
LEAST_PAYMENTS_A_DAY = 300


@dataclass(frozen=True)
class Payments:
    """Payments in the order of their event time; of equal times, in the order of the source.

    Attributes:
        name: What they come from, for the report.
        transaction_id: Unique id of each payment, as text.
        event_time_us: int64 (n,), µs since 1970-01-01 UTC.
        customer_id, terminal_id: Ids as text.
        amount_cents: int64 (n,), rounded to the nearest cent.
        fraud: bool (n,), the label.
    """

    name: str
    transaction_id: list[str]
    event_time_us: npt.NDArray[np.int64]
    customer_id: list[str]
    terminal_id: list[str]
    amount_cents: npt.NDArray[np.int64]
    fraud: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.transaction_id)

    def history(self) -> History:
        """The payments as events of the fraud pipeline; the label of each comes a week later."""
        columns = EventColumns(
            self.transaction_id,
            self.event_time_us,
            {"customer_id": self.customer_id, "terminal_id": self.terminal_id},
            {"amount_cents": self.amount_cents.astype(np.float64)},
        )
        label_time_us = self.event_time_us + LABEL_DELAY
        return History(self.name, columns, self.fraud, label_time_us, Words("payments", "frauds"), self.customer_id)


def load_source(
    path: str | Path | None,
    events: int | None = None,
    seed: int = 0,
    *,
    max_amount_cents: int = MAX_AMOUNT_CENTS,
) -> Payments:
    """Payments of a file, or of the simulator where no file is named.

    Args:
        path: A `.parquet` or `.csv` file with the columns `COLUMNS`; others are ignored. None simulates.
        events: At most so many payments: the earliest of a file, exactly so many of the simulator (100,000 where
            None).
        seed: Seed of the simulator; a file has no use for it.
        max_amount_cents: The largest amount that the pipeline takes.

    Raises:
        SourceError: The file is missing, of another kind, empty, or one of its values cannot be used.
    """
    if events is not None and events < 1:
        raise SourceError("EVENTS", f"is {events}, allowed is 1 or more")
    if path is None:
        if seed < 0:
            raise SourceError("SEED", f"is {seed}, allowed is 0 or more")
        count = DEFAULT_EVENTS if events is None else events
        # A few payments over many days would leave gaps of days in a partition, which its time guard takes for faults.
        days = min(Simulation.days, max(LEAST_DAYS, count // LEAST_PAYMENTS_A_DAY))
        simulation = Simulation(events=count, days=days, seed=seed)
        return _payments(f"simulator, seed {seed}", simulate(simulation), None, max_amount_cents)
    source = str(path)
    return _payments(source, _read(Path(path), source), events, max_amount_cents)


def _read(path: Path, source: str) -> pl.DataFrame:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise SourceError(source, f"is not a file we read, allowed are {' and '.join(SUFFIXES)}")
    if not path.exists():
        raise SourceError(source, "does not exist")
    if not path.is_file():
        raise SourceError(source, "is not a file")
    try:
        if suffix == ".parquet":
            present = list(pl.read_parquet_schema(path))
            _require_columns(source, present)
            return pl.read_parquet(path, columns=list(COLUMNS))
        # All columns as text: guessed types would depend on the first rows, and turn the id 007 into 7.
        table = pl.read_csv(path, infer_schema=False)
    except pl.exceptions.NoDataError:
        raise SourceError(source, "is empty") from None
    except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError) as error:
        detail = str(error).strip().splitlines()
        raise SourceError(source, f"cannot be read as {suffix[1:]}: {detail[0] if detail else error!r}") from error
    _require_columns(source, table.columns)
    return table.select(COLUMNS)


def _require_columns(source: str, present: list[str]) -> None:
    for column in COLUMNS:
        if column not in present:
            raise SourceError(source, f"is missing; the file has {', '.join(present) or 'no columns'}", column=column)


def _payments(source: str, table: pl.DataFrame, events: int | None, max_amount_cents: int) -> Payments:
    if table.is_empty():
        raise SourceError(source, "is empty: it has no payments")
    for column in COLUMNS:
        _refuse(source, table, column, table[column].is_null(), "is empty")
    event_time = _event_time(source, table)
    checked = pl.DataFrame(
        {
            "transaction_id": _identifier(source, table, "TRANSACTION_ID"),
            "event_time_us": event_time,
            "customer_id": _identifier(source, table, "CUSTOMER_ID"),
            "terminal_id": _identifier(source, table, "TERMINAL_ID"),
            "amount_cents": _amount_cents(source, table, max_amount_cents),
            "fraud": _fraud(source, table),
        }
    )
    twice = ~checked["transaction_id"].is_first_distinct()
    _refuse(source, table, "TRANSACTION_ID", twice, "is there a second time; every payment has its own id")
    if not checked["event_time_us"].is_sorted():
        checked = checked.sort("event_time_us", maintain_order=True)
    if events is not None:
        checked = checked.head(events)
    return Payments(
        name=source,
        transaction_id=checked["transaction_id"].to_list(),
        event_time_us=checked["event_time_us"].to_numpy(),
        customer_id=checked["customer_id"].to_list(),
        terminal_id=checked["terminal_id"].to_list(),
        amount_cents=checked["amount_cents"].to_numpy(),
        fraud=checked["fraud"].to_numpy(),
    )


def _refuse(source: str, table: pl.DataFrame, column: str, wrong: pl.Series, reason: str) -> None:
    """Raise for the first row where `wrong` holds, naming its value."""
    first = wrong.arg_max() if wrong.any() else None
    if first is None:
        return
    value = table[column][first]
    shown = "" if value is None else f"{value!r} " if isinstance(value, str) else f"{value} "
    raise SourceError(source, shown + reason, column=column, row=first + 1)


def _wrong_type(source: str, column: str, dtype: pl.DataType, allowed: str) -> SourceError:
    return SourceError(source, f"has the type {dtype}, allowed is {allowed}", column=column)


def _identifier(source: str, table: pl.DataFrame, column: str) -> pl.Series:
    values = table[column]
    if not (values.dtype.is_integer() or values.dtype in (pl.String, pl.Categorical, pl.Enum)):
        raise _wrong_type(source, column, values.dtype, "an integer or text")
    text = values.cast(pl.String)
    _refuse(source, table, column, text.str.strip_chars() == "", "is blank; it needs an id")
    _refuse(source, table, column, text.str.len_bytes() > MAX_ID_BYTES, f"is too long; {MAX_ID_BYTES} bytes fit")
    return text


def _event_time(source: str, table: pl.DataFrame) -> pl.Series:
    values = table["TX_DATETIME"]
    if isinstance(values.dtype, pl.Datetime):
        parsed = values.dt.epoch("us")
    elif values.dtype == pl.String:
        parsed = parse_dates(values)
        _refuse(source, table, "TX_DATETIME", parsed.is_null(), f"is no date; {DATE_ALLOWED}")
    else:
        raise _wrong_type(source, "TX_DATETIME", values.dtype, "a date with a time")
    outside = (parsed <= 0) | (parsed >= LATEST_TIME_US)
    _refuse(source, table, "TX_DATETIME", outside, "is out of range; allowed are the years 1970 to 2200")
    return parsed


def _number(source: str, table: pl.DataFrame, column: str, allowed: str) -> pl.Series:
    values = table[column]
    if values.dtype.is_numeric() or values.dtype == pl.Boolean:
        return values.cast(pl.Float64)
    if values.dtype != pl.String:
        raise _wrong_type(source, column, values.dtype, allowed)
    number = values.str.strip_chars().cast(pl.Float64, strict=False)
    _refuse(source, table, column, number.is_null(), f"is no number; allowed is {allowed}")
    return number


def _amount_cents(source: str, table: pl.DataFrame, maximum: int) -> pl.Series:
    allowed = "a number of 0 or more"
    if table["TX_AMOUNT"].dtype == pl.Boolean:
        raise _wrong_type(source, "TX_AMOUNT", table["TX_AMOUNT"].dtype, allowed)
    amount = _number(source, table, "TX_AMOUNT", allowed)
    _refuse(source, table, "TX_AMOUNT", ~amount.is_finite(), f"is not finite; allowed is {allowed}")
    _refuse(source, table, "TX_AMOUNT", amount < 0, f"is negative; allowed is {allowed}")
    cents = (amount * 100).round()
    _refuse(source, table, "TX_AMOUNT", cents > maximum, f"is too large; allowed is up to {maximum / 100:.2f}")
    return cents.cast(pl.Int64)


def _fraud(source: str, table: pl.DataFrame) -> pl.Series:
    fraud = _number(source, table, "TX_FRAUD", "0 or 1")
    _refuse(source, table, "TX_FRAUD", ~((fraud == 0) | (fraud == 1)), "is no label; allowed is 0 or 1")
    return fraud == 1
