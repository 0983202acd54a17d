"""A history as a table: a file, or what a simulation gives, with a column for each field of the event.

Columns: `event_id`, `event_time` (a date with a time, or microseconds since 1970 UTC), the fields of the event by name,
`label` (0, 1 or empty) and `label_time` (when the label becomes known). Without a `label_time` a label is known at the
horizon of its event. Columns with other names are ignored, optional fields may have none.

A table is checked whole before anything is done with it, and what is wrong is told by column and row, because the
stream would set such an event aside later, where it is harder to find.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from headrace.demo.errors import RowsError, SourceError
from headrace.demo.history import NO_LABEL, History, Words
from headrace.pipeline import EventColumns, EventError, Pipeline
from headrace.pipeline.schema import LATEST_TIME_US, MAX_ID_BYTES, Field

EVENT_ID, EVENT_TIME, LABEL, LABEL_TIME = "event_id", "event_time", "label", "label_time"
SUFFIXES = (".parquet", ".csv", ".jsonl")
SHOWN_FAULTS = 10
UNREADABLE_TIME = 1
DATE_FORMATS = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f")
ZONED_DATE_FORMATS = ("%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M:%S%.f%#z")
DATE_ALLOWED = "allowed is a date with a time, such as 2018-04-01 00:00:31 (UTC unless it names a zone)"
TRUTH = {"true": 1.0, "false": 0.0, "1": 1.0, "0": 0.0}


def read_table(path: Path, pipeline: Pipeline, events: int | None = None) -> History:
    """The history that a file holds.

    Args:
        path: A `.parquet`, `.csv` or `.jsonl` file.
        pipeline: Gives the fields, their bounds and the horizon.
        events: At most so many events, the earliest.

    Raises:
        SourceError: The file is missing, of another kind, empty, or a column is missing or of a wrong type.
        RowsError: Values cannot be used.
    """
    return history_of(str(path), read_file(path), pipeline, events)


def read_file(path: Path) -> pl.DataFrame:
    """The rows of a file. Those of a CSV file are text: guessed types would turn the id 007 into 7.

    Raises:
        SourceError: The file is missing, of another kind or damaged.
    """
    source, suffix = str(path), path.suffix.lower()
    if suffix not in SUFFIXES:
        raise SourceError(source, f"is not a file we read, allowed are {', '.join(SUFFIXES)}")
    if not path.exists():
        raise SourceError(source, "does not exist")
    if not path.is_file():
        raise SourceError(source, "is not a file")
    try:
        if suffix == ".parquet":
            return pl.read_parquet(path)
        if suffix == ".csv":
            return pl.read_csv(path, infer_schema=False)
        return pl.read_ndjson(path, infer_schema_length=None)
    except pl.exceptions.NoDataError:
        raise SourceError(source, "is empty") from None
    except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError) as error:
        detail = str(error).strip().splitlines()
        raise SourceError(source, f"cannot be read as {suffix[1:]}: {detail[0] if detail else error!r}") from error


def history_of(
    source: str,
    table: pl.DataFrame,
    pipeline: Pipeline,
    events: int | None = None,
    words: Words | None = None,
) -> History:
    """The history that a table holds.

    Args:
        source: What the table comes from, for the report and for errors.
        table: See this module.
        pipeline: Gives the fields, their bounds and the horizon.
        events: At most so many events, the earliest.
        words: What events and positives are called.

    Raises:
        SourceError: The table is empty, or a column is missing or of a wrong type.
        RowsError: Values cannot be used.
    """
    if table.is_empty():
        raise SourceError(source, "is empty: it has no events")
    check = _Check(source, table)
    ids, times = check.ids(), check.event_times()
    columns = {one.name: check.text(one) if one.kind == "text" else check.number(one) for one in pipeline.event.fields}
    label, label_times = check.labels(times, pipeline.label.horizon)
    check.raise_faults()
    order = np.argsort(times.to_numpy(), kind="stable")[:events]
    rows = pl.Series(order)
    return History(
        source,
        EventColumns(
            ids.gather(rows).to_list(),
            times.to_numpy()[order],
            {one.name: columns[one.name].gather(rows).to_list() for one in pipeline.event.texts},
            {one.name: columns[one.name].to_numpy()[order] for one in pipeline.event.numbers},
        ),
        label.to_numpy()[order] == 1,
        np.where(label.is_null().to_numpy(), NO_LABEL, label_times.to_numpy())[order],
        words or Words(),
    )


def parse_dates(values: pl.Series) -> pl.Series:
    """µs since 1970 UTC of dates as text, null where no format fits."""
    text = values.str.strip_chars()
    return pl.select(
        pl.coalesce(
            *(text.str.to_datetime(form, time_unit="us", strict=False).dt.epoch("us") for form in DATE_FORMATS),
            *(
                text.str.to_datetime(form, time_unit="us", strict=False).dt.convert_time_zone("UTC").dt.epoch("us")
                for form in ZONED_DATE_FORMATS
            ),
        )
    ).to_series()


@dataclass
class _Check:
    """Checks a table column by column, and gathers what is wrong."""

    source: str
    table: pl.DataFrame
    faults: list[SourceError] = field(default_factory=list)
    more: int = 0

    def raise_faults(self) -> None:
        if self.faults:
            first = sorted(self.faults, key=lambda fault: fault.row or 0)
            raise RowsError(self.source, first[:SHOWN_FAULTS], self.more + len(first[SHOWN_FAULTS:]))

    def ids(self) -> pl.Series:
        values = self._as_text(self._column(EVENT_ID), EVENT_ID)
        self._refuse(EVENT_ID, values.is_null() | (values == ""), lambda row: "is empty; it needs an id")
        too_long = values.str.len_bytes() > MAX_ID_BYTES
        self._refuse(EVENT_ID, too_long, lambda row: f"is too long; {MAX_ID_BYTES} bytes fit")
        twice = ~values.is_first_distinct() & values.is_not_null() & (values != "")
        self._refuse(EVENT_ID, twice, lambda row: f"{values[row]!r} is there a second time; every event has its own id")
        return values

    def event_times(self) -> pl.Series:
        times = self._times(EVENT_TIME, required=True)
        return times.fill_null(UNREADABLE_TIME)

    def text(self, declared: Field) -> pl.Series:
        given = self._field(declared)
        if given is None:
            return pl.Series([""]).new_from_index(0, len(self.table))
        values = self._as_text(given, declared.name).fill_null("")
        wrong = values.str.len_bytes() > declared.max_bytes
        if not declared.optional:
            wrong |= values == ""
        self._refuse(declared.name, wrong, lambda row: _fault(lambda: declared.check_text(values[row])))
        return values

    def number(self, declared: Field) -> pl.Series:
        given = self._field(declared)
        if given is None:
            return pl.Series([np.nan]).new_from_index(0, len(self.table))
        values = self._as_number(given, declared)
        absent = values.is_null() | values.is_nan()
        wrong = ~absent & (~values.is_between(declared.minimum, declared.maximum) | values.is_infinite())
        if not declared.optional:
            wrong |= absent
        if declared.kind == "integer":
            wrong |= ~absent & (values != values.floor())
        checked = values.fill_null(np.nan)
        self._refuse(declared.name, wrong, lambda row: _fault(lambda: declared.check_number(checked[row])))
        return checked

    def labels(self, times: pl.Series, horizon: int) -> tuple[pl.Series, pl.Series]:
        """Labels, null where there is none, and when they become known."""
        if LABEL not in self.table.columns:
            return pl.Series([None], dtype=pl.Float64).new_from_index(0, len(times)), times + horizon
        label = self._as_number(self.table[LABEL], Field(LABEL, "number")).fill_nan(None)
        self._refuse(LABEL, (label != 0) & (label != 1), lambda row: f"is {label[row]:g}; allowed is 0, 1 or nothing")
        if LABEL_TIME not in self.table.columns:
            return label, times + horizon
        known = self._times(LABEL_TIME, required=False).fill_null(times + horizon)
        early = label.is_not_null() & (known < times)
        self._refuse(LABEL_TIME, early, lambda row: "is before the event; a label becomes known after it")
        late = label.is_not_null() & (times != UNREADABLE_TIME) & (known > times + horizon)
        self._refuse(LABEL_TIME, late, lambda row: "is beyond the horizon of the label; by then it has expired")
        return label, known

    def _column(self, name: str) -> pl.Series:
        if name not in self.table.columns:
            there = ", ".join(self.table.columns)
            raise SourceError(self.source, f"is missing; there are {there}", column=name)
        return self.table[name]

    def _field(self, declared: Field) -> pl.Series | None:
        if declared.optional and declared.name not in self.table.columns:
            return None
        return self._column(declared.name)

    def _as_text(self, values: pl.Series, name: str) -> pl.Series:
        if not (values.dtype.is_integer() or values.dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null)):
            raise SourceError(self.source, f"has the type {values.dtype}, allowed is text or an integer", column=name)
        return values.cast(pl.String)

    def _as_number(self, values: pl.Series, declared: Field) -> pl.Series:
        if values.dtype.is_numeric() or values.dtype in (pl.Boolean, pl.Null):
            return values.cast(pl.Float64)
        if values.dtype != pl.String:
            raise SourceError(self.source, f"has the type {values.dtype}, allowed is a number", column=declared.name)
        text = values.str.strip_chars()
        if declared.kind == "boolean":
            number, allowed = text.str.to_lowercase().replace_strict(TRUTH, default=None), "true or false"
        else:
            number, allowed = text.cast(pl.Float64, strict=False), "a number"
        wrong = number.is_null() & text.is_not_null() & (text != "")
        self._refuse(declared.name, wrong, lambda row: f"is {values[row]!r}; it must be {allowed}")
        # Told once: what cannot be read is not missing as well.
        stand_in = min(max(0.0, declared.minimum), declared.maximum)
        return pl.select(pl.when(wrong).then(stand_in).otherwise(number).cast(pl.Float64)).to_series()

    def _times(self, name: str, *, required: bool) -> pl.Series:
        values = self._column(name)
        if isinstance(values.dtype, pl.Datetime):
            times = values.dt.epoch("us")
        elif values.dtype.is_integer():
            times = values.cast(pl.Int64)
        elif values.dtype == pl.String:
            digits = values.str.strip_chars().cast(pl.Int64, strict=False)
            times = pl.select(pl.coalesce(digits, parse_dates(values))).to_series()
        else:
            raise SourceError(self.source, f"has the type {values.dtype}; {DATE_ALLOWED}", column=name)
        empty = values.is_null() | (values == "") if values.dtype == pl.String else values.is_null()
        if required:
            self._refuse(name, empty, lambda row: "is empty; it is required")
        self._refuse(name, times.is_null() & ~empty, lambda row: f"{values[row]!r} is no date; {DATE_ALLOWED}")
        outside = (times <= 0) | (times >= LATEST_TIME_US)
        self._refuse(name, outside, lambda row: f"{values[row]} is out of range; allowed are the years 1970 to 2200")
        return times

    def _refuse(self, column: str, wrong: pl.Series, reason: Callable[[int], str]) -> None:
        rows = wrong.fill_null(False).arg_true().to_list()
        for row in rows[:SHOWN_FAULTS]:
            self.faults.append(SourceError(self.source, reason(row), column=column, row=row + 1))
        self.more += len(rows[SHOWN_FAULTS:])


def _fault(check: Callable[[], object]) -> str:
    try:
        check()
    except EventError as error:
        return error.detail
    return "cannot be used"
