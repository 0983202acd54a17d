"""Events as a table: one form for those of a file and those of a topic, and the columns that features are made from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from headrace.offline.errors import TableError
from headrace.offline.parquet_file import ParquetFile
from headrace.pipeline import EventColumns, EventError, EventSchema
from headrace.pipeline.events import hash_ids
from headrace.pipeline.schema import Field, check_identity

EVENT_ID = "event_id"
EVENT_TIME = "event_time"

# Names inside a table: no field can have them, as a field's name is an identifier.
ROW, ID, TIME, HASH = "#row", "#id", "#time", "#hash"

NUMERIC = "allowed is a number"


@dataclass(frozen=True)
class EventFile:
    """The events of a Parquet file: the schema's fields by name, and the columns `event_id` and `event_time`.

    Attributes:
        file: the file.
        schema: fields and bounds. An optional field may have no column.
    """

    file: ParquetFile
    schema: EventSchema

    def check(self) -> None:
        """Check that the columns are there.

        Raises:
            TableError: names the first that is not, or says that the file is empty.
        """
        required = [field.name for field in self.schema.fields if not field.optional]
        self.file.require([EVENT_ID, EVENT_TIME, *required])
        if not self.rows:
            raise TableError(str(self.file.path), "has no rows")

    @cached_property
    def rows(self) -> int:
        """Number of events."""
        return self.file.rows

    def block(self, start: int, length: int) -> pl.DataFrame:
        """Checked events in the form of `event_table`, in the order of the file.

        Raises:
            TableError: names column and row of the first value that the schema does not allow.
        """
        present = [field.name for field in self.schema.fields if field.name in self.file.schema]
        frame = self.file.read(list(dict.fromkeys([EVENT_ID, EVENT_TIME, *present])), start, length)
        ids = self.file.text(frame, EVENT_ID)
        suspect = ids.is_null() | (ids.str.len_bytes() == 0) | (ids.str.len_bytes() > 128)
        self.file.refuse(EVENT_ID, suspect, start, lambda row: _identity(ids[row]))
        columns = {ID: ids, TIME: self.file.times(frame, EVENT_TIME, start)}
        for field in self.schema.fields:
            if field.name not in frame.columns:
                absent = pl.lit("") if field.kind == "text" else pl.lit(np.nan)
                columns[field.name] = pl.select(absent.repeat_by(len(frame)).explode()).to_series()
            elif field.kind == "text":
                columns[field.name] = self._text(frame, field, start)
            else:
                columns[field.name] = self._number(frame, field, start)
        return event_table(pl.DataFrame(columns), start)

    def _text(self, frame: pl.DataFrame, field: Field, start: int) -> pl.Series:
        values = self.file.text(frame, field.name)
        if field.optional:
            values = values.fill_null("")
        suspect = values.is_null() | (values.str.len_bytes() > field.max_bytes)
        if not field.optional:
            suspect |= values.str.len_bytes() == 0
        self.file.refuse(field.name, suspect, start, lambda row: _detail(field, values[row]))
        return values

    def _number(self, frame: pl.DataFrame, field: Field, start: int) -> pl.Series:
        given = frame[field.name]
        if field.kind == "boolean":
            if given.dtype not in (pl.Boolean, pl.Null):
                raise self.file.wrong_type(field.name, "allowed is true or false")
        elif not (given.dtype.is_numeric() or given.dtype == pl.Null):
            raise self.file.wrong_type(field.name, NUMERIC)
        values = given.cast(pl.Float64)
        if field.optional:
            values = values.fill_null(np.nan)
        absent = values.is_null() | values.is_nan()
        suspect = values.is_null() | (~absent & ~values.is_between(field.minimum, field.maximum)) | values.is_infinite()
        if not field.optional:
            suspect |= absent
        if field.kind == "integer":
            suspect |= ~absent & (values != values.floor())
        self.file.refuse(field.name, suspect, start, lambda row: _detail(field, values[row]))
        return values


def event_table(checked: pl.DataFrame, start: int) -> pl.DataFrame:
    """A table of events with the number of each row and the hash of each id.

    Args:
        checked: ids, times in microseconds and all fields of the schema; other fields than text as float64.
        start: number of the first row.
    """
    hashes = pl.Series(HASH, hash_ids(checked[ID].to_list()), pl.UInt64)
    rows = pl.Series(ROW, np.arange(start, start + len(checked), dtype=np.int64))
    return checked.with_columns(rows, hashes)


def event_columns(schema: EventSchema, table: pl.DataFrame) -> EventColumns:
    """The rows of a table as features are made from them."""
    return EventColumns(
        table[ID].to_list(),
        table[TIME].to_numpy(),
        {field.name: table[field.name].to_list() for field in schema.texts},
        {field.name: np.array(table[field.name].to_numpy(), np.float64) for field in schema.numbers},
    )


def _identity(event_id: str | None) -> str:
    try:
        check_identity(event_id or "", 1)
    except EventError as error:
        return error.detail
    return "is not an event id"


def _detail(field: Field, value: object) -> str:
    """Why the schema refuses a value, in the words in which a stream's event would be refused."""
    absent = value is None
    try:
        if field.kind == "text":
            field.check_text("" if absent else value)
        else:
            field.check_number(float("nan") if absent else value)
    except EventError as error:
        return error.detail
    return f"{value} is not allowed"
